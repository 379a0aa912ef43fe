"""Acceptance cases 1 to 17: a credential goes only where its rule says."""

import contextlib
import ssl

import pytest

from mitm_gateway.rules.load import parse_rules
from mitm_gateway.rules.problems import RulesError
from support.answers import Reply
from support.company_proxy import Relay
from support.constants import API, CK, CLIENT_KEY, ENV
from support.fixture_types import StartMitmdump, StartStage
from support.http_client import pseudo_headers
from support.security_stage import API_HEADERS, BODY, OWN, RULES, Stage
from support.table import table

pytestmark = pytest.mark.e2e

OWN_KEY = ("x-api-key", OWN)


def test_01_a_name_that_begins_with_the_rules_host_is_another_host(stage: Stage) -> None:
    host = f"{API}.evil.test"
    answer = stage.ask(headers=[("Host", host), OWN_KEY], client=stage.tunnel(host))
    assert answer.status == 200
    assert stage.evil.requests[-1].values("x-api-key") == [OWN]
    assert stage.evil.requests[-1].values("authorization") == []


@pytest.mark.parametrize("host", [f"{API}/", f"{API} ", f"https://{API}", f"{API}\n", f"a{API}@b", "*.*", ""])
def test_02_an_invalid_host_is_rejected_and_the_rule_is_named(host: str) -> None:
    text = RULES.replace(f"host: {API}", f"host: {host!r}" if "\n" not in host else f'host: "{API}\\n"')
    with pytest.raises(RulesError, match=r"host|gw"):
        parse_rules(text.encode(), "rules.yaml", {})


def test_03_a_plain_request_with_another_host_header_is_421(stage: Stage) -> None:
    stage.assert_refused(stage.ask("http://evil.test/x", API_HEADERS, client=stage.plain()), 421)


def test_04_an_inner_host_that_differs_from_the_tunnel_is_421(stage: Stage) -> None:
    stage.assert_refused(stage.ask(client=stage.tunnel("evil.test")), 421)


def test_05_an_authority_that_differs_from_the_tunnel_is_421(stage: Stage) -> None:
    client = stage.http2("evil.test")
    stage.assert_refused(client.request([*pseudo_headers(API), CLIENT_KEY], BODY), 421)


def test_05_an_authority_and_another_host_is_refused(stage: Stage) -> None:
    client = stage.http2()
    head = [*pseudo_headers(API, "/"), ("host", "evil.test")]
    with contextlib.suppress(ConnectionError, ssl.SSLEOFError):  # h2 itself ends such a connection
        stage.assert_refused(client.request([*head, CLIENT_KEY], BODY), 400)
    stage.assert_silence()


def test_06_a_server_name_that_differs_is_421(stage: Stage) -> None:
    stage.assert_refused(stage.ask(client=stage.tunnel(sni="evil.test")), 421)


def test_06_a_tunnel_without_a_server_name_is_served(stage: Stage) -> None:
    assert stage.ask(client=stage.tunnel(sni=None)).status == 200


def test_07_a_rules_host_with_another_inner_host_is_421(stage: Stage) -> None:
    stage.assert_refused(stage.ask(headers=[("Host", "evil.test"), CLIENT_KEY]), 421)


@table("hosts", [("evil.test", API), (API, "evil.test"), (API, API), ()])
@table("way", ["tunnel", "plain", "reverse"])
def test_08_anything_but_one_host_header_is_400(stage: Stage, hosts: tuple[str, ...], way: str) -> None:
    client = stage.client(way)
    target = f"http://{API}/v1/messages" if way == "plain" else "/v1/messages"
    answer = stage.ask(target, [*(("Host", host) for host in hosts), CLIENT_KEY], client=client)
    stage.assert_refused(answer, 400)


def test_09_plain_http_to_a_ruled_host_leaves_over_tls(stage: Stage) -> None:
    answer = stage.ask(f"http://{API}/v1/models", API_HEADERS, b"", "GET", stage.plain())
    assert answer.status == 200
    assert stage.asked.target == "/v1/models"
    assert stage.gw.connections[stage.asked.connection].sni == "gw.test"


@pytest.mark.parametrize(
    ("upstream", "extra", "accepted"),
    [
        ("http://10.0.0.5", "", False),
        ("http://localhost.evil.test", "", False),
        ("http://localhost", "", False),
        ("http://127.0.0.1.evil.test", "", False),
        ("http://127.0.0.1:9", "", True),
        ("http://[::1]:9", "", True),
        ("http://10.0.0.5", "    allow_http: true\n", True),
    ],
)
def test_10_a_plain_upstream_gets_a_credential_only_on_loopback_or_with_allow_http(
    upstream: str, extra: str, accepted: bool
) -> None:
    text = RULES.replace("    upstream: https://gw.test\n", f"    upstream: {upstream}\n{extra}")
    if accepted:
        assert parse_rules(text.encode(), "rules.yaml", {}).rules
        return
    with pytest.raises(RulesError, match="http"):
        parse_rules(text.encode(), "rules.yaml", {})


def test_10_a_plain_reverse_target_gets_no_credential(mitmdump: StartMitmdump) -> None:
    text = RULES.replace("    upstream: https://gw.test\n", "").replace(API, "10.0.0.5")
    proxy = mitmdump(rules=text, modes=["reverse:http://10.0.0.5"], env=ENV, wait=False)
    assert proxy.wait_for_exit() == 1
    assert "plain http" in proxy.output()


# tests/addon/test_option_verdicts.py tries every option.
@pytest.mark.parametrize("option", ["ssl_insecure=true", "map_remote=|https://gw.test|https://evil.test"])
def test_11_an_option_that_undoes_a_promise_prevents_the_start(mitmdump: StartMitmdump, option: str) -> None:
    proxy = mitmdump("--set", option, rules=RULES, env=ENV, wait=False)
    assert proxy.wait_for_exit() == 1
    assert option.partition("=")[0] in proxy.output()


def test_11_a_reverse_listener_without_keep_host_header_does_not_start(mitmdump: StartMitmdump) -> None:
    # Without `keep_host_header` mitmproxy overwrites Host before any addon sees it: a page could bring its own name.
    modes = [f"reverse:https://{API}"]
    proxy = mitmdump("--set", "keep_host_header=false", rules=RULES, modes=modes, env=ENV, wait=False)
    assert proxy.wait_for_exit() == 1
    assert "keep_host_header" in proxy.output()


def test_12_nothing_in_body_or_headers_changes_the_destination(stage: Stage) -> None:
    before = [len(each.connections) for each in (stage.evil, stage.evil_plain, stage.api)]
    headers = [*API_HEADERS, ("X-Forwarded-Host", "evil.test"), ("X-HTTP-Method-Override", "TRACE"),
               ("Forwarded", "host=evil.test"), ("X-Original-URL", "https://evil.test/")]  # fmt: skip
    answer = stage.ask(headers=headers, body=b'{"model":"claude-x","api_base":"https://evil.test"}')
    assert answer.status == 200
    assert stage.asked.header("host") == "gw.test"
    assert [len(each.connections) for each in (stage.evil, stage.evil_plain, stage.api)] == before


@table(
    "host",
    [
        f"{API}:443@evil.test", f"evil.test#{API}", f"{API}%00.evil.test", f"{API}/", f"{API}:99999",
        "api\x0b.anthropic.com", f"{API},evil.test",
    ],
)  # fmt: skip
def test_13_junk_in_host_is_400(stage: Stage, host: str) -> None:
    stage.assert_refused(stage.ask(headers=[("Host", host), CLIENT_KEY]), 400)


@table("host", ["API.Anthropic.COM.", "api.anthropic.com.", "API.ANTHROPIC.COM"])
def test_14_other_spellings_of_a_host_are_the_same_host(stage: Stage, host: str) -> None:
    client = stage.tunnel(host, sni=API)
    assert stage.ask(headers=[("Host", host), CLIENT_KEY], client=client).status == 200
    assert stage.asked.header("host") == "gw.test"


FULL_WIDTH = ["\uff41pi.anthropic.com", "\uff21PI\u3002anthropic\uff0ecom"]


@table("host", FULL_WIDTH)
def test_14_a_host_in_full_width_letters_is_the_same_host(stage: Stage, host: str) -> None:
    head = f"POST /v1/messages HTTP/1.1\r\nHost: {host}\r\nx-api-key: {CK}\r\nContent-Length: {len(BODY)}\r\n\r\n"
    for client in (stage.tunnel(), stage.reverse()):
        client.send(head.encode() + BODY)
        assert client.read_response().status == 200
        assert (stage.asked.header("host"), stage.asked.values("x-api-key")) == ("gw.test", [])


@table("host", FULL_WIDTH)
@table("line", ["CONNECT {}:443", "POST http://{}/v1/messages", "POST https://{}/v1/messages"])
def test_14_full_width_letters_in_a_request_line_are_refused(stage: Stage, line: str, host: str) -> None:
    # mitmproxy takes ASCII only in a target, so the request ends before a rule could be looked for.
    client = stage.plain()
    client.send(f"{line.format(host)} HTTP/1.1\r\nHost: {host}\r\nx-api-key: {CK}\r\n\r\n".encode())
    stage.assert_refused(client.read_response(), 400)


def test_15_a_redirect_is_returned_and_not_followed(stage: Stage) -> None:
    stage.gw.script = Reply(307, b"", (("Location", "https://evil.test/"),))
    connections = len(stage.evil.connections)
    answer = stage.ask()
    assert (answer.status, answer.header("location")) == (307, "https://evil.test/")
    assert len(stage.evil.connections) == connections


def test_16_a_host_that_does_not_resolve_is_never_dialled(stage_with: StartStage) -> None:
    stage = stage_with(rules=RULES.replace(API, "nowhere.test"), modes=["regular"], host="nowhere.test")
    assert stage.ask().status == 200


def test_17_the_users_upstream_proxy_is_used(relay: Relay, stage_with: StartStage) -> None:
    stage = stage_with(modes=[f"upstream:http://127.0.0.1:{relay.port}"])
    relay.table = {"gw.test:443": stage.gw.port}
    assert stage.ask().status == 200
    assert relay.targets == ["gw.test:443"]


def test_17_that_proxy_receives_no_credential_over_plain_http(relay: Relay, stage_with: StartStage) -> None:
    rules = RULES.replace("https://gw.test", "http://127.0.0.1:9")
    stage = stage_with(rules=rules, modes=[f"upstream:http://127.0.0.1:{relay.port}"])
    stage.ends_refusing = True
    stage.assert_refused(stage.ask(), 502)
    assert relay.targets == []
