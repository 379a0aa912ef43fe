"""A running Envoy with an exported configuration: TLS, HTTP/2, WebSocket, pages, pass, faults, fresh secrets."""

import contextlib
import json
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest

from support.answers import Bytes, Header, Reply, json_reply, message
from support.certificates import Authority
from support.constants import ADDON, API, CK, GW, UPGRADE
from support.envoy import Envoy
from support.fixture_types import StartEnvoy, StartOneEnvoy, StartRecorder
from support.http_client import Http2Client, Wire, pseudo_headers
from support.one_rule import ask, error_of, rules
from support.recorder import Recorder
from support.waiting import wait_until

pytestmark = pytest.mark.e2e


WAYS = ("plain", "filtered")


def both(upstream: str) -> str:
    """Return two rules for an upstream, which has a base path: one without the filter, and one with it."""
    rule = f"upstream: {upstream}/base, auth: {{scheme: bearer, credential: gw}}"
    return f"""
credentials: {{gw: {{env: GW_KEY}}}}
rules:
  - {{name: plain, match: {{host: "{API}", path: /plain/**}}, {rule}}}
  - {{name: filtered, match: {{host: "{API}", path: /filtered/**}}, {rule}, models: {{default: gw-model}}}}
"""


@pytest.mark.parametrize("http2", [False, True], ids=["http1", "http2"])
def test_an_upstream_is_asked_by_its_name_and_in_the_best_protocol(
    envoy: StartEnvoy, recorder: StartRecorder, authority: Authority, http2: bool
) -> None:
    upstream = recorder(json_reply(message("gw-model")), tls=authority, names=("localhost",), http2=http2)
    proxy = envoy(both(f"https://localhost:{upstream.port}"), ca=str(authority.ca_file))
    for way, model in zip(WAYS, ("gw-model", "claude"), strict=True):
        answer = ask(proxy, ("x-api-key", CK), target=f"/{way}/v1/messages", body=b'{"model":"claude"}')
        assert answer.status == 200, answer.body
        assert json.loads(answer.body)["model"] == model
        asked = upstream.wait_for_request(f"/base/{way}/v1/messages")
        assert asked.header("authorization") == f"Bearer {GW}"
        assert asked.header(":authority" if http2 else "host") == f"localhost:{upstream.port}"
        assert asked.header("x-api-key") is None
        connection = upstream.connections[asked.connection]
        assert (connection.sni, connection.alpn) == ("localhost", "h2" if http2 else "http/1.1")


def test_a_certificate_for_another_name_or_of_another_authority_gets_no_request(
    envoy: StartEnvoy, recorder: StartRecorder, authority: Authority, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    for issuer, name in ((authority, "other.test"), (Authority(tmp_path / "other"), "localhost")):
        upstream = recorder(json_reply({}), tls=issuer, names=(name,))
        proxy = envoy(rules(f"https://localhost:{upstream.port}"), ca=str(authority.ca_file))
        answer = ask(proxy)
        assert (answer.status, upstream.raw) == (502, b"")
        assert "cannot be reached" in error_of(answer)


def test_unmatched_requests_pass_untouched_where_the_rules_say_so(
    envoy: StartEnvoy, recorder: StartRecorder, authority: Authority
) -> None:
    target, upstream = (
        recorder(json_reply({}), tls=authority, names=("localhost",)),
        recorder(json_reply({})),
    )
    place = f"localhost:{target.port}"
    text = rules(upstream.url, top="unmatched: pass", host=place)
    proxy = envoy(text, host=place, ca=str(authority.ca_file))
    assert ask(proxy).status == 200
    assert upstream.wait_for_request().header("authorization") == f"Bearer {GW}"
    for number, path in enumerate(("/other?key=mine", "/%6fther/?a=%7e"), start=1):
        fields = (("x-api-key", CK), ("Cookie", "a=b"), ("Proxy-Authorization", "Basic dTpw"))
        assert ask(proxy, *fields, target=path, body=b"any").status == 200
        passed = target.wait_for_request(count=number)
        assert (passed.target, passed.body) == (path, b"any")
        assert (passed.header("x-api-key"), passed.header("cookie")) == (CK, "a=b")
        assert (passed.header("host"), passed.header("authorization")) == (place, None)
        assert passed.header("proxy-authorization") is None  # a key for a proxy stays here
    assert ask(proxy, target="/other/%2e%2e/x").status == 400


def test_only_pages_of_a_listed_origin_get_in_and_may_read_the_answer(
    envoy: StartEnvoy, recorder: StartRecorder
) -> None:
    fields = (("Access-Control-Allow-Origin", "*"), ("X-Else", "1"), ("Alt-Svc", 'h3=":8443"'))
    upstream = recorder(json_reply({}, headers=fields))
    proxy = envoy(both(upstream.url), origins=("https://ours.test",))
    for target in (f"/{way}/x" for way in WAYS):
        page = (("Origin", "https://Ours.test"), ("Sec-Fetch-Site", "cross-site"))
        ours, nobodys = ask(proxy, *page, target=target), ask(proxy, target=target)
        assert (ours.status, ours.header("access-control-allow-origin")) == (200, "*")
        assert nobodys.status == 200
        assert (nobodys.header("access-control-allow-origin"), nobodys.header("x-else")) == (None, "1")
        assert ours.header("alt-svc") is nobodys.header("alt-svc") is None
        theirs = ask(proxy, ("Origin", "https://theirs.test"), target=target)
        assert theirs.status == 403
        assert "--origin" in error_of(theirs)
    assert len(upstream.requests) == 2 * len(WAYS)


@pytest.mark.parametrize("tokens", [False, True], ids=["plain", "filtered"])
def test_a_websocket_is_opened_with_the_gateways_key(one_envoy: StartOneEnvoy, tokens: bool) -> None:
    head = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
    upstream, proxy = one_envoy(Bytes(head + b"first frame"), tokens=tokens)
    with Wire(proxy.port) as client:
        client.send(
            b"GET /v1/realtime HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Protocol: realtime, openai-insecure-api-key." + CK.encode() + b"\r\n\r\n"
        )
        assert b"101" in client.read_until(b"\r\n\r\n")
        assert client.read_until(b"first frame") == b"first frame"
    asked = upstream.wait_for_request("/base/v1/realtime")
    assert asked.header("authorization") == f"Bearer {GW}"
    assert asked.header("sec-websocket-protocol") == "realtime"
    assert asked.header("upgrade") == "websocket"
    assert CK.encode() not in upstream.raw


@pytest.mark.parametrize("target", ["/v1/messages", "/v1/messages?a=%20", "/elsewhere"])
def test_a_websocket_that_is_no_get_is_refused_at_once(one_envoy: StartOneEnvoy, target: str) -> None:
    upstream, proxy = one_envoy(Reply())
    with Wire(proxy.port) as client:
        answer = client.request("POST", target, [("Host", "localhost"), *UPGRADE], b"{}")
    assert answer.status == 400
    assert json.loads(answer.body)["error"]["type"] == "invalid_request_error"
    assert upstream.raw == b""


@pytest.mark.parametrize(
    ("place", "fault"),
    [
        ("function envoy_on_request(handle)", 'function envoy_on_request(handle) error("planted")'),
        ("admission.check(request)\n", 'admission.check(request) error("planted")\n'),
        (
            "local function answer(request",
            'local function answer() error("planted") end local function unused(request',
        ),
    ],
    ids=["in the hook", "in a request", "in a refusal"],
)
def test_a_fault_in_the_filter_sends_nothing(one_envoy: StartOneEnvoy, place: str, fault: str) -> None:
    def planted(text: str) -> str:
        assert place in text
        return text.replace(place, fault)

    upstream, proxy = one_envoy(more="models: {default: gw-model}", edit=planted)
    # The last one is refused; the others are good.
    target = "/v1/../messages" if "answer" in place else "/v1/messages"
    answer = ask(proxy, ("x-api-key", CK), target=target)
    assert (answer.status, upstream.raw) == (502, b"")
    assert "internal fault" in error_of(answer)
    assert "planted" in proxy.output()


@pytest.mark.parametrize("chosen", ["0", "2"], ids=["none", "another"])
def test_a_request_edited_for_another_rule_is_not_sent(
    envoy: StartEnvoy, recorder: StartRecorder, chosen: str
) -> None:
    upstream = recorder(json_reply({}))
    second = f"""
  - name: second
    match: {{host: "{API}"}}
    upstream: {upstream.url}
    auth: {{scheme: none}}
"""
    place = "request.number = number or 0"
    text = rules(upstream.url, "models: {default: gw-model}") + second
    proxy = envoy(text, edit=lambda text: text.replace(place, f"request.number = {chosen}"))
    answer = ask(proxy, ("x-api-key", CK))
    assert (answer.status, upstream.raw) == (502, b"")
    assert "internal fault" in error_of(answer)


def test_a_helpers_new_token_is_sent_without_a_restart(
    envoy: StartEnvoy, recorder: StartRecorder, tmp_path: Path
) -> None:
    upstream = recorder(json_reply({}))
    token = tmp_path / "token"
    token.write_text("first-token")
    helper = f'{{command: [cat, "{token}"], ttl: 1s}}'
    text = rules(upstream.url).replace("{env: GW_KEY}", helper)
    file = tmp_path / "rules.yaml"
    file.write_text(text)
    proxy = envoy(text, env={})
    command = [
        sys.executable,
        "-m",
        "mitm_gateway.cli",
        "token-files",
        "--rules",
        str(file),
        str(proxy.secrets),
    ]
    keeper = subprocess.Popen(command, env={"PYTHONPATH": str(ADDON), "PATH": "/usr/bin:/bin"})
    try:
        wait_for_key(proxy, upstream, "first-token")
        draft = tmp_path / "draft"
        draft.write_text("second-token")
        draft.replace(token)
        wait_for_key(proxy, upstream, "second-token")
        assert {file.stat().st_mode & 0o777 for file in proxy.secrets.iterdir()} == {0o600}
    finally:
        keeper.terminate()
        assert keeper.wait(20) == 0


def wait_for_key(proxy: Envoy, upstream: Recorder, key: str) -> None:
    """Ask until the upstream receives this key; Envoy may end a connection while it replaces a secret."""

    def sent() -> bool:
        with contextlib.suppress(ConnectionError):
            return ask(proxy).status == 200 and upstream.requests[-1].values("authorization") == [
                f"Bearer {key}"
            ]
        return False

    wait_until(sent, proxy.output)


def test_a_clients_trailers_are_not_forwarded(
    envoy: StartEnvoy, recorder: StartRecorder, authority: Authority
) -> None:
    upstream = recorder(json_reply({}), tls=authority, names=("localhost",), http2=True)
    proxy = envoy(both(f"https://localhost:{upstream.port}"), ca=str(authority.ca_file))
    with Wire(proxy.port) as wire:
        client = Http2Client(wire)
        for way in WAYS:
            head = pseudo_headers("localhost", f"/{way}/x", scheme="http")
            stream = client.send_request(head, b"{}", trailers=[("x-api-key", CK), ("x-else", "1")])
            assert client.read_response(stream).status == 200
            asked = upstream.wait_for_request(f"/base/{way}/x")
            assert asked.body == b"{}"
            assert not any(name in ("x-api-key", "x-else") for name, _ in asked.headers)


MALFORMED: list[tuple[str, str, tuple[Header, ...]]] = [
    ("TRACK", "/x", ()),
    ("GET /x HTTP/1.1", "/x", ()),
    ("GET", "/x HTTP/1.1 x", ()),
    ("GET", "/a\r\nx: y", ()),
    ("GET", "x", ()),
    ("", "/x", ()),
    ("POST", "/x", (("content-length", "5"),)),
]


def test_a_head_that_http2_allows_and_http1_does_not_is_not_sent(
    envoy: StartEnvoy, recorder: StartRecorder
) -> None:
    upstream = recorder(json_reply({}))
    proxy = envoy(both(upstream.url))
    heads = [
        [
            *pseudo_headers("localhost", f"/{way}{target}" if target[0] == "/" else target, method, "http"),
            *fields,
        ]
        for way in WAYS
        for method, target, fields in MALFORMED
    ]
    with contextlib.ExitStack() as opened:
        clients = [Http2Client(opened.enter_context(Wire(proxy.port))) for _ in heads]
        for client, head in zip(clients, heads, strict=True):
            client.send_request(head)
        # Envoy ends a connection that is no HTTP/2 a second later, so all are sent before the first is read.
        for client, head in zip(clients, heads, strict=True):
            with contextlib.suppress(ConnectionError):
                assert client.read_response(1).status >= 400, head
    assert upstream.raw == b""


def test_a_listed_page_is_answered_its_preflight_and_may_read(
    one_envoy: StartOneEnvoy, tmp_path: Path
) -> None:
    clients = tmp_path / "clients"
    clients.write_text("team-key\n")
    upstream, proxy = one_envoy(
        Reply(200, b"{}", (("Vary", "Accept"),)), origins=("https://ours.test",), clients=str(clients)
    )
    origin = ("Origin", "https://ours.test")
    asked = ask(proxy, origin, ("Access-Control-Request-Headers", "x-a, x-b"), method="OPTIONS", body=b"")
    assert (asked.status, asked.body) == (204, b"")
    assert asked.header("access-control-allow-origin") == "https://ours.test"
    assert asked.header("access-control-allow-headers") == "x-a, x-b"
    assert "POST" in (asked.header("access-control-allow-methods") or "")
    assert ask(proxy, ("Origin", "https://theirs.test"), method="OPTIONS", body=b"").status == 403
    assert upstream.raw == b""
    answer = ask(proxy, origin, ("x-api-key", "team-key"))
    assert (answer.status, answer.header("access-control-allow-origin")) == (200, "https://ours.test")
    assert "Origin" in (answer.header("vary") or "")


@pytest.mark.parametrize(
    ("method", "target"),
    [("POST", "/v1/messages"), ("OPTIONS", "/v1/messages"), ("GET", "/v1/models"), ("HEAD", "/x"), ("GET", "/x"),
     ("OPTIONS", "/x"), ("POST", "/v1/%2e/x"), ("OPTIONS", "/v1/%2e/x"), ("GET", "/v1/%6dodels")],
)  # fmt: skip
def test_answers_given_here_are_readable_for_listed_pages_only(
    one_envoy: StartOneEnvoy, method: str, target: str
) -> None:
    more = "models: {map: {claude-x: gw-model}}\nrespond: {models: true, head: true}"
    origins = ("https://ours.test", "vscode-webview://*")
    _, proxy = one_envoy(json_reply({}), more=more, origins=origins)
    for origin in ("https://OURS.test", "vscode-webview://a-1"):
        answer = ask(proxy, ("Origin", origin), method=method, target=target, body=b"")
        assert answer.header("access-control-allow-origin") == origin
        assert answer.header("vary") == "Origin"
    for origin in (
        "https://ours.test:8443",
        "https://ours.test.evil.test",
        "null",
        "https://ours.test,vscode-webview://a",
    ):
        refused = ask(proxy, ("Origin", origin), method=method, target=target, body=b"")
        assert refused.status == 403
        assert not [name for name, _ in refused.headers if name.lower().startswith("access-control-")]


# Headers of a session and its agent, and what the log has of a path and of these.
NAMED = (
    ("/messages?beta=true", "s-1", "a.1", ("/messages", "s-1", "a.1")),
    ("/sk-mine", "sk-ant-mine", "a b", ("****", "other", None)),  # something like a key
)


def test_a_log_line_names_session_and_agent_with_the_filter_and_without(
    envoy: StartEnvoy, recorder: StartRecorder
) -> None:
    proxy = envoy(both(recorder(json_reply({})).url))
    for number, (way, (target, session, agent, logged)) in enumerate(product(WAYS, NAMED)):
        headers = (
            ("X-Claude-Code-Session-Id", session),
            ("session_id", "other"),
            ("X-Claude-Code-Agent-Id", agent),
        )
        assert ask(proxy, *headers, target=f"/{way}{target}").status == 200
        line = proxy.log_line(number)
        assert (line["path"].removeprefix(f"/{way}"), line.get("session"), line.get("agent")) == logged
        assert "mine" not in str(line)
