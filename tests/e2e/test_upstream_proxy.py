"""A company's proxy between the gateway and its upstreams, which alone can resolve their names."""

from pathlib import Path
from urllib.parse import quote

import pytest

from support.answers import Stream, event, insist_on_bearer, json_reply, message
from support.certificates import Authority
from support.command import Command
from support.company_proxy import Relay
from support.constants import API, GW, UPGRADE
from support.fixture_types import StartMitmdump, StartRecorder
from support.http_client import Response, Wire
from support.mitmdump import Mitmdump
from support.program import unused_port

pytestmark = pytest.mark.e2e

PASSWORD = "pr@xy: pässword"
LOGIN = f"us%40er:{quote(PASSWORD)}"
RULES = f"""
credentials: {{gw: {{env: GW_KEY}}}}
rules:
  - name: tls
    match: {{host: {API}}}
    upstream: https://gw.test
    auth: {{scheme: bearer, credential: gw}}
  - name: plain
    match: {{host: plain.test}}
    upstream: http://gw-plain.test:8000
    auth: {{scheme: none}}
"""
REVERSE = f"reverse:https://{API}"


def start(mitmdump: StartMitmdump, authority: Authority, *args: str, **env: str) -> Mitmdump:
    return mitmdump(*args, rules=RULES, modes=["regular"], trust=authority.ca_file, env={"GW_KEY": GW, **env})


def through(relay: Relay, *, scheme: str = "http", login: str = "") -> str:
    return f"{scheme}://{login}{'@' if login else ''}127.0.0.1:{relay.port}"


def get(port: int, host: str, path: str = "/") -> Response:
    """Ask for a page of a host over plain http."""
    with Wire(port) as wire:
        return wire.request("GET", f"http://{host}{path}", [("Host", host)])


# ---- ways through ----


def test_rules_passing_hosts_and_raw_tunnels_use_the_proxy(
    mitmdump: StartMitmdump, recorder: StartRecorder, authority: Authority, tmp_path: Path
) -> None:
    ruled = recorder(insist_on_bearer(GW, json_reply(message())), tls=authority, names=["gw.test"])
    passing = recorder(json_reply({}), tls=authority, names=["other.test"])
    plain = recorder(json_reply(message()))
    table = {
        "gw.test:443": ruled.port,
        "other.test:443": passing.port,
        "gw-plain.test:8000": plain.port,
        "other.test:80": plain.port,
        "other.test:22": plain.port,
    }
    with Relay(table, login=f"us@er:{PASSWORD}") as relay:
        flows = tmp_path / "flows"
        url = through(relay, login=LOGIN)
        proxy = start(
            mitmdump, authority, "-w", str(flows), "--set", "flow_detail=4",
            HTTPS_PROXY=url, http_proxy=url, NO_PROXY="direct.test",
        )  # fmt: skip
        with Wire.through(proxy.port, f"{API}:443", proxy.ca_cert) as wire:
            assert wire.request("GET", "/v1/models", [("Host", API)]).status == 200
        with Wire.through(proxy.port, "other.test:443", proxy.ca_cert) as wire:
            assert wire.request("GET", "/", [("Host", "other.test")]).status == 200
        for host in ("plain.test", "other.test"):
            assert get(proxy.port, host, "/a?b").status == 200
        with Wire(proxy.port) as wire:
            assert wire.connect("other.test:22").status == 200
            wire.send(b"\x00\x01raw")
            plain.wait_for_bytes(b"\x00\x01raw")
        assert get(proxy.port, "direct.test").status == 502
        proxy.stop()
    assert relay.targets == [
        "gw.test:443", "other.test:443", "gw-plain.test:8000", "other.test:80", "other.test:22"
    ]  # fmt: skip
    lines = [head.split(b"\r\n")[0] for head in relay.heads]
    assert lines[2:4] == [
        b"GET http://gw-plain.test:8000/a?b HTTP/1.1", b"GET http://other.test/a?b HTTP/1.1"
    ]  # fmt: skip
    assert [(seen.header("host"), seen.target) for seen in plain.requests] == [
        ("gw-plain.test:8000", "/a?b"), ("other.test", "/a?b")
    ]  # fmt: skip
    assert f"https through 127.0.0.1:{relay.port} (HTTPS_PROXY)" in proxy.output()
    encoded = relay.heads[0].split(b"Basic ")[1].split(b"\r\n")[0]
    kept = proxy.output().encode() + flows.read_bytes()
    assert not any(secret in kept for secret in (PASSWORD.encode(), quote(PASSWORD).encode(), encoded))


@pytest.mark.parametrize("kind", ["https", "socks5h"])
def test_requests_pass_through_tls_and_socks_proxies(
    mitmdump: StartMitmdump, recorder: StartRecorder, authority: Authority, kind: str
) -> None:
    upstream = recorder(Stream((event("a"), event("b"))), tls=authority, names=["gw.test"], http2=True)
    with Relay(
        {"gw.test:443": upstream.port}, login="u:p", tls=authority if kind == "https" else None
    ) as relay:
        option = f"gateway_proxy={through(relay, scheme=kind, login='u:p')}"
        proxy = start(mitmdump, authority, "--set", option, HTTPS_PROXY="http://127.0.0.1:1")
        with Wire.through(proxy.port, f"{API}:443", proxy.ca_cert) as wire:
            wire.send_request("GET", "/v1/models", [("Host", API)])
            wire.read_head()
            assert wire.read_chunk() == event("a")
            upstream.release()
            assert wire.read_chunk() == event("b")


def test_websockets_of_passing_hosts_get_a_tunnel(
    mitmdump: StartMitmdump, recorder: StartRecorder, authority: Authority
) -> None:
    upstream = recorder(json_reply({}))
    with Relay({"other.test:80": upstream.port}) as relay:
        proxy = start(mitmdump, authority, http_proxy=through(relay))
        with Wire(proxy.port) as wire:
            wire.request("GET", "http://other.test/ws", [("Host", "other.test"), *UPGRADE])
        assert relay.heads[0].startswith(b"CONNECT other.test:80 ")


@pytest.mark.parametrize("options", [("--intercept",), ()], ids=["intercept", "reverse"])
def test_the_clients_of_run_get_through_it(
    recorder: StartRecorder, authority: Authority, command: Command, claude: Path, options: tuple[str, ...]
) -> None:
    ruled = recorder(insist_on_bearer(GW), tls=authority, names=["gw.test"])
    passing = recorder(json_reply({"passed": True}), tls=authority, names=["other.test"])
    command.write_rules(RULES)
    with Relay({"gw.test:443": ruled.port, "other.test:443": passing.port}, login="u:pass-word") as relay:
        env = {
            "GW_KEY": GW,
            "HTTPS_PROXY": through(relay, login="u:pass-word"),
            "SSL_CERT_FILE": str(authority.ca_file),
        }
        script = f"{claude} -p hi; curl -sS https://other.test/"
        done = command.run("run", *options, "--", "bash", "-c", script, env=env)
    assert done.stdout == 'hello there\n{"passed": true}', done
    assert {"gw.test:443", "other.test:443"} <= set(relay.targets)
    assert not [target for target in relay.targets if target.startswith("127.")]
    assert "pass-word" not in command.logs[-1].read_text()


# ---- ways past it ----


def test_loopback_no_proxy_and_none_bypass_it(
    mitmdump: StartMitmdump, recorder: StartRecorder, authority: Authority
) -> None:
    upstream = recorder(json_reply({}))
    with Relay() as relay:
        url = through(relay)
        proxy = start(mitmdump, authority, HTTP_PROXY=url, all_proxy=url)
        for host in ("127.0.0.1", "localhost"):
            assert get(proxy.port, f"{host}:{upstream.port}").status == 200
        other = start(mitmdump, authority, "--set", "gateway_proxy=none", ALL_PROXY=url)
        assert get(other.port, "other.test").status == 502
        assert relay.heads == []
        assert "by proxy" not in other.output()


def test_a_proxy_that_is_the_gateway_itself_is_ignored(
    mitmdump: StartMitmdump, recorder: StartRecorder, authority: Authority
) -> None:
    upstream, port = recorder(json_reply({})), unused_port()
    proxy = mitmdump(
        "-p", str(port), rules=RULES, modes=["regular"], names={"other.test:80": upstream.port},
        env={"GW_KEY": GW, "all_proxy": f"http://localhost:{port}"},
    )  # fmt: skip
    assert get(port, "other.test").status == 200
    assert proxy.output().count("all_proxy names this gateway itself, and is ignored") == 1


# ---- faults ----


REFUSALS = {
    "login missing": (b"HTTP/1.1 407 No\r\nProxy-Authenticate: Basic\r\n\r\n", "asks for a user and a password (407)"),
    "other login": (b"HTTP/1.1 407 No\r\nProxy-Authenticate: NTLM\r\n\r\n", "asks for a login other than Basic (407)"),
    "forbidden": (b"HTTP/1.1 403 No\r\n\r\n", "does not allow connections to gw.test:443 (403)"),
    "not found": (b"HTTP/1.1 503 No\r\n\r\n", "cannot reach gw.test:443, or does not find its name (503)"),
    "closes": (b"", "closed the connection"),
    "not http": (b"SSH-2.0-x\r\n\r\n", "does not answer as an HTTP proxy"),
}  # fmt: skip


def reason(proxy: Mitmdump) -> str:
    with Wire.through(proxy.port, f"{API}:443", proxy.ca_cert) as wire:
        answer = wire.request("GET", "/v1/models", [("Host", API)])
    assert answer.status == 502
    return answer.body.decode()


def test_each_refusal_of_a_proxy_has_its_own_sentence(mitmdump: StartMitmdump, authority: Authority) -> None:
    with Relay() as relay:
        proxy = start(mitmdump, authority, HTTPS_PROXY=through(relay), http_proxy=through(relay))
        for answer, sentence in REFUSALS.values():
            relay.answer = answer
            expected = f"the proxy 127.0.0.1:{relay.port} {sentence}"
            assert expected in reason(proxy)
            assert expected in proxy.output()
        relay.answer = REFUSALS["login missing"][0]
        plain = get(proxy.port, "other.test")
        assert (plain.status, b"asks for a user and a password" in plain.body) == (502, True)


def test_a_wrong_login_and_an_unreachable_proxy_are_named(
    mitmdump: StartMitmdump, authority: Authority, tmp_path: Path
) -> None:
    other = Authority(tmp_path)
    with Relay(login="u:right") as relay, Relay(tls=other) as untrusted:
        cases = {
            through(
                relay, login="u:wrong-pass"
            ): "does not accept the user and the password in gateway_proxy (407)",
            f"http://127.0.0.1:{unused_port()}": "refused the connection; correct gateway_proxy, or start it",
            through(untrusted, scheme="https"): "has a certificate that is not trusted",
            through(relay, scheme="https"): "does not speak TLS",
        }
        for url, sentence in cases.items():
            proxy = start(mitmdump, authority, "--set", f"gateway_proxy={url}")
            assert sentence in reason(proxy)
            assert "wrong-pass" not in proxy.output()
            proxy.kill()


def test_a_fault_while_connecting_is_a_502(
    mitmdump: StartMitmdump, authority: Authority, tmp_path: Path
) -> None:
    script = tmp_path / "fault.py"
    script.write_text(
        "import asyncio\n"
        "async def broken(*args, **options):\n    raise UnicodeError('S3CRET')\n"
        "def running():\n    asyncio.open_connection = broken\n"
    )
    proxy = start(mitmdump, authority, "-s", str(script))
    assert "internal fault (UnicodeError)" in reason(proxy)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (
            "ftp://u:pass-word@proxy",
            'names a proxy of an unknown kind "ftp"; expected http, https, socks5, socks5h',
        ),
        ("http://u:pass-word@", "is not the URL of a proxy; expected one such as"),
        ("http://u:pass-word@proxy:x", "is not the URL of a proxy; expected one such as"),
    ],
)
def test_an_invalid_url_ends_the_start(mitmdump: StartMitmdump, value: str, expected: str) -> None:
    proxy = mitmdump(rules=RULES, wait=False, env={"HTTPS_PROXY": value, "GW_KEY": GW})
    assert proxy.wait_for_exit() == 1
    assert f"HTTPS_PROXY {expected}" in proxy.output()
    assert "pass-word" not in proxy.output()
