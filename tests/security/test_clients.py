"""Acceptance cases 18 to 27: clients that may use the gateway."""

import base64
import re
import socket
from collections.abc import Iterator

import pytest

from support.certificates import Authority
from support.constants import API, CK, CLIENT_KEY, JSON, UPGRADE
from support.fixture_types import StartStage
from support.process_figures import listening_addresses
from support.security_stage import BODY, OWN, RULES, Client, Stage
from support.table import table
from support.waiting import wait_until

pytestmark = pytest.mark.e2e

PASS = "client-key-of-a-colleague-0123456789"  # holds the mark that may stand nowhere
REVERSE = ("Host", "localhost")
OWN_SERVICES = "do not reach this machine's own services"


def own_address() -> str:
    """An address of this machine that is not loopback; nothing is sent to find it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has no address but loopback")
        return str(probe.getsockname()[0])


def test_18_without_listen_options_the_port_is_open_on_loopback_only(stage_with: StartStage) -> None:
    stage = stage_with(listen_host=None, modes=["regular"])
    # Python 3.12 and later narrow the listener that is already open.
    stage.proxy.wait_for_output(r"(listening|reachable) at 127\.0\.0\.1")
    wait_until(lambda: listening_addresses(stage.proxy.port) == {"127.0.0.1"})


def test_19_other_machines_get_nothing(stage_with: StartStage) -> None:
    stage = stage_with(listen_host="0.0.0.0", modes=["regular"])
    with Client(stage.proxy.port, own_address()) as client:
        client.send(b"CONNECT gw.test:443 HTTP/1.1\r\nHost: gw.test:443\r\n\r\n")
        assert stage.assert_ends(client) == b""
    stage.assert_silence()


@pytest.fixture(scope="module")
def keyed_stage(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("keyed")
    clients = folder / "clients.txt"
    clients.write_text(f"# people\n{PASS}\n{CK}\n")
    clients.chmod(0o600)
    with Stage(folder, authority, "--set", f"gateway_clients={clients}", listen_host="0.0.0.0") as stage:
        yield stage


@pytest.fixture
def keyed(keyed_stage: Stage) -> Iterator[Stage]:
    """A gateway that requires a client key; `CK` is one of two."""
    with keyed_stage.case():
        yield keyed_stage


@table(
    ("header", "status"),
    [
        (None, 401),
        (("Authorization", "Bearer wrong"), 401),
        (("Authorization", f"Bearer {PASS[:-1]}"), 401),
        (("Authorization", f"Bearer {PASS}x"), 401),
        (("Authorization", "Bearer "), 401),
        (("Authorization", "Bearer # people"), 401),
        (("x-api-key", "\xe9"), 401),
        (("Authorization", f"Bearer {PASS}"), 200),
        (("authorization", f"bearer {PASS}"), 200),
        (("X-API-KEY", PASS), 200),
    ],
)
def test_19_only_the_exact_client_key_is_accepted(
    keyed: Stage, header: tuple[str, str] | None, status: int
) -> None:
    headers = [REVERSE, JSON, *([header] if header else [])]
    with Client(keyed.proxy.ports[-1], own_address()) as client:
        headers[0] = ("Host", API)
        answer = client.request("POST", "/v1/messages", headers, BODY)
    if status == 200:
        assert answer.status == 200
        assert PASS.encode() not in keyed.gw.raw
    else:
        keyed.assert_refused(answer, status)


def test_19_a_tunnel_to_another_host_needs_a_key_once(keyed: Stage) -> None:
    with keyed.plain() as client:
        keyed.assert_refused(client.connect("evil.test:443"), 401)
    with keyed.plain() as client:
        keyed.assert_refused(client.connect("evil.test:443", [("Proxy-Authorization", "Bearer no")]), 401)
    with keyed.plain() as client:
        answer = client.connect("evil.test:443", [("Proxy-Authorization", f"Basic {_basic(PASS)}")])
        assert answer.status == 200
        client.start_tls("evil.test", keyed.proxy.ca_cert)
        assert client.request("GET", "/", [("Host", "evil.test"), ("x-api-key", OWN)]).status == 200
    assert PASS.encode() not in keyed.evil.raw


def _basic(password: str) -> str:
    return base64.b64encode(f"user:{password}".encode()).decode()


def test_19_a_client_key_is_not_forwarded_to_a_host_without_rules(keyed: Stage) -> None:
    with keyed.plain() as client:
        answer = client.request("GET", "http://evil.test/x", [("Host", "evil.test"), ("x-api-key", PASS)])
        assert answer.status == 200
    assert PASS.encode() not in keyed.evil_plain.raw


@table("origin", ["https://evil.example", "null", "https://api.anthropic.com", ""])
@table("way", ["reverse", "tunnel"])
def test_20_a_web_page_cannot_post(stage: Stage, origin: str, way: str) -> None:
    client = stage.client(way)
    headers = [("Host", API), CLIENT_KEY, ("Origin", origin), ("Content-Type", "text/plain")]
    stage.assert_refused(stage.ask(headers=headers, client=client), 403)


def test_20_cross_site_requests_without_an_origin_are_refused(stage: Stage) -> None:
    headers = [REVERSE, CLIENT_KEY, ("Sec-Fetch-Site", "cross-site")]
    stage.assert_refused(stage.ask(headers=headers, client=stage.reverse(), method="GET", body=b""), 403)


@table("method", ["OPTIONS", "options"])
def test_21_a_preflight_is_refused_without_cors_headers(stage: Stage, method: str) -> None:
    headers = [REVERSE, ("Origin", "https://evil.example"), ("Access-Control-Request-Method", "POST")]
    stage.assert_refused(stage.ask(headers=headers, client=stage.reverse(), method=method, body=b""), 403)


def test_a_listed_page_may_ask_and_read(stage_with: StartStage) -> None:
    stage = stage_with("--set", "gateway_origins=https://app.example,vscode-webview://*")
    for origin in ("https://app.example", "vscode-webview://0f3a"):
        page = [REVERSE, ("Origin", origin)]
        asked = stage.arrived()
        answer = stage.ask(
            headers=[*page, ("Access-Control-Request-Method", "POST")],
            client=stage.reverse(),
            method="OPTIONS",
            body=b"",
        )
        assert (answer.status, stage.arrived()) == (204, asked)
        assert answer.header("access-control-allow-origin") == origin
        answer = stage.ask(headers=[*page, CLIENT_KEY], client=stage.reverse())
        assert (answer.status, answer.header("access-control-allow-origin")) == (200, origin)
        refused = stage.ask(headers=[*page, CLIENT_KEY], client=stage.reverse(), body=b"nonsense")
        assert (refused.status, refused.header("access-control-allow-origin")) == (400, origin)


@table("host", ["attacker.example:8080", "evil.test", "127.0.0.1.evil.test", "localhost.evil.test"])
def test_22_a_name_rebound_to_loopback_is_421(stage: Stage, host: str) -> None:
    stage.assert_refused(stage.ask(headers=[("Host", host), CLIENT_KEY], client=stage.reverse()), 421)


@table("host", ["localhost", "127.0.0.1:8080", "[::1]", API, f"{API.upper()}."])
def test_22_the_listeners_own_names_are_served(stage: Stage, host: str) -> None:
    assert stage.ask(headers=[("Host", host), CLIENT_KEY], client=stage.reverse()).status == 200


@table("way", ["reverse", "tunnel"])
def test_23_a_websocket_of_a_page_is_refused(stage: Stage, way: str) -> None:
    client = stage.client(way)
    headers = [("Host", API), CLIENT_KEY, ("Origin", "https://evil.example"), *UPGRADE]
    answer = stage.ask("/v1/realtime", headers, b"", "GET", client)
    stage.assert_refused(answer, 403)


HERE = ["127.0.0.1", "localhost", "LOCALHOST.", "0.0.0.0", "127.1.2.3", "127.1", "2130706433", "0x7f.1",
        "[::1]", "[::]", "[::ffff:127.0.0.1]", "own address", "own name"]  # fmt: skip
# mitmproxy recognises some names itself, and some resolvers do not know one.
NOT_CONNECTED = re.compile("must not come back|Request destination unknown|the test knows no")


def here(name: str) -> str:
    return {"own address": own_address, "own name": socket.gethostname}.get(name, lambda: name)()


@table("host", HERE)
@table("port", ["web", "proxy"])
def test_24_the_proxys_ports_cannot_be_reached_through_it(shared_web: Stage, host: str, port: str) -> None:
    proxy, host = shared_web.proxy, here(host)
    number = proxy.web_port if port == "web" else proxy.ports[0]
    start = len(proxy.output())
    with shared_web.plain() as client:
        answer = client.request("GET", f"http://{host}:{number}/flows", [("Host", f"{host}:{number}")])
    assert answer.status == 502, answer
    wait_until(lambda: NOT_CONNECTED.search(proxy.output(), start), proxy.output)
    assert proxy.output().count("client connect", start) == 1


@table("host", HERE)
def test_24_the_proxys_ports_cannot_be_reached_through_a_tunnel(shared_web: Stage, host: str) -> None:
    proxy, host = shared_web.proxy, here(host)
    with shared_web.plain() as client:
        if client.connect(f"{host}:{proxy.web_port}").status == 200:
            client.send(f"GET /flows HTTP/1.1\r\nHost: {host}:{proxy.web_port}\r\n\r\n".encode())
            assert b"HTTP/1.1 200" not in shared_web.assert_ends(client)
    assert "client_conn" not in proxy.output()


def test_24_a_mitmweb_without_a_login_causes_a_warning(shared_web: Stage) -> None:
    from mitmproxy import version

    warned = "CVE-2025-23217" in shared_web.proxy.output()
    assert warned == (tuple(map(int, version.VERSION.split(".")[:3])) < (11, 1, 2))


@table("host", ["127.0.0.1", "localhost", "own address", "169.254.169.254", "100.100.100.200", "[::1]"])
def test_25_other_machines_cannot_reach_this_machines_services(keyed: Stage, host: str) -> None:
    port, host = keyed.evil_plain.port, here(host)
    told = keyed.proxy.output().count(OWN_SERVICES)
    with Client(keyed.proxy.ports[0], own_address()) as client:
        headers = [("Host", f"{host}:{port}"), ("Proxy-Authorization", f"Bearer {PASS}")]
        answer = client.request("GET", f"http://{host}:{port}/", headers)
    assert answer.status == 502
    assert keyed.proxy.output().count(OWN_SERVICES) > told
    keyed.assert_silence()


def test_25_unmatched_tunnels_are_blocked(stage_with: StartStage) -> None:
    stage = stage_with(rules=f"unmatched: block\n{RULES}")
    with stage.plain() as client:
        stage.assert_refused(client.connect("evil.test:443"), 404)
    with stage.plain() as client:
        answer = client.request("GET", "http://evil.test/", [("Host", "evil.test"), CLIENT_KEY])
        stage.assert_refused(answer, 404)


@table("method", ["TRACE", "trace", "Trace", "TRACK"])
@table("way", ["tunnel", "reverse", "plain"])
def test_26_trace_is_refused(stage: Stage, method: str, way: str) -> None:
    client = stage.client(way)
    target = "http://evil.test/" if way == "plain" else "/"
    host = "evil.test" if way == "plain" else API
    stage.assert_refused(stage.ask(target, [("Host", host), CLIENT_KEY], b"", method, client), 403)


ODD_PATHS = ["/v1/../admin", "/v1/%2e%2e/admin", "//evil/v1/", "/v1/%252e%252e/admin", "/v1/..;/admin",
             "/v1/..\\admin", "/v1/./x", "/v1//x", "/v1/%2e./x", "/v1/x/..",
             "/v1/messages%2Fbatches", "/v1/messages;x"]  # fmt: skip


@table("path", ODD_PATHS)
def test_27_odd_segments_are_400(stage: Stage, path: str) -> None:
    client = stage.tunnel("path.test")
    stage.assert_refused(stage.ask(path, [("Host", "path.test"), CLIENT_KEY], client=client), 400)


def test_27_the_query_is_not_part_of_the_path(stage: Stage) -> None:
    client = stage.tunnel("path.test")
    answer = stage.ask("/v1/messages?x=/admin/../", [("Host", "path.test"), CLIENT_KEY], client=client)
    assert answer.status == 200
    assert stage.asked.target == "/base/v1/messages?x=/admin/../"
