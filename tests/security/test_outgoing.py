"""Acceptance cases 28 to 43: outgoing requests."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mitm_gateway.text.redact import normal_name
from support.answers import Bytes, Stream, message_events
from support.certificates import Authority
from support.constants import API, CK, CK_MARK, CLIENT_KEY, GW, JSON, ROOT
from support.stage import API_HEADERS, BODY, RULES, Client, Stage, answers, assert_absent
from support.starters import StartMitmdump, StartStage

pytestmark = pytest.mark.e2e

AUTH = {"authorization", "xapikey", "apikey", "xgoogapikey", "anthropicapikey", "ocpapimsubscriptionkey",
        "proxyauthorization", "cookie"}  # fmt: skip


def auth_fields(stage: Stage) -> list[tuple[str, str]]:
    """Every header of the last request upstream that can hold a key."""
    return [(name, value) for name, value in stage.asked.headers if normal_name(name) in AUTH]


# Case 28 is one of the failure matrix: test_faults.py.


def test_29_a_large_body_is_forwarded_by_a_rule_that_does_not_read_it(stage_with: StartStage) -> None:
    text = RULES.replace("    models: {map: {claude-x: gw-model}}\n", "")
    stage = stage_with("--set", "stream_large_bodies=2k", rules=text, ready=BODY)
    for size in (2047, 2048, 2049, 5000):
        body = b'{"x":"' + b"a" * (size - 8) + b'"}'
        assert stage.ask(body=body).status == 200
        assert stage.asked.body == body
        assert auth_fields(stage) == [("Authorization", f"Bearer {GW}")]


STREAMING = """
class Streaming:
    def requestheaders(self, flow):
        flow.request.stream = True

addons = [Streaming()]
"""


@pytest.mark.parametrize("chunked", [False, True])
def test_30_a_refused_request_that_another_addon_streams_is_answered(
    stage_with: StartStage, tmp_path: Path, chunked: bool
) -> None:
    other = tmp_path / "streaming.py"
    other.write_text(STREAMING)
    stage = stage_with("-s", str(other))
    client = stage.tunnel()
    body = b"a" * (5 << 20)
    framing = ("Transfer-Encoding", "chunked") if chunked else ("Content-Length", str(len(body)))
    client.send_request("POST", "/v1/../x", [("Host", API), CLIENT_KEY, framing])
    with contextlib.suppress(ConnectionError):
        client.send(b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body) if chunked else body)
    stage.assert_refused(client.read_response(timeout=5), 400)


def test_31_a_request_waits_for_a_slow_helper(stage_with: StartStage, tmp_path: Path) -> None:
    helper = tmp_path / "helper.sh"
    helper.write_text(f"#!/bin/sh\nsleep 1\necho {GW}\n")
    helper.chmod(0o700)
    stage = stage_with(rules=RULES.replace("{env: GW_KEY}", f"{{command: [{helper}]}}"))
    began = time.monotonic()
    assert stage.ask().status == 200
    assert time.monotonic() - began > 0.9
    assert auth_fields(stage) == [("Authorization", f"Bearer {GW}")]


def test_31_requests_during_the_start_never_leave_with_the_clients_key(stage_with: StartStage) -> None:
    """A client repeats its request from before the port opens."""
    from support.processes import unused_port

    port = unused_port()
    stage_with("-p", str(port), modes=["regular"], wait=False)
    answers = []
    deadline = time.monotonic() + 30
    while 200 not in answers and time.monotonic() < deadline:
        try:
            with Client(port) as client:
                answer = client.request("GET", f"http://{API}/", API_HEADERS)
                answers.append(answer.status)
        except ConnectionError:
            continue
    assert set(answers) <= {200, 503}
    assert answers[-1] == 200


@pytest.mark.parametrize("how", ["garbage", "deleted"])
def test_32_33_bad_rules_while_running_keep_the_good_ones(stage_with: StartStage, how: str) -> None:
    stage = stage_with()
    if how == "garbage":
        stage.proxy.write_rules("rules: [\x00")
    else:
        stage.proxy.rules_file.unlink()
    stage.proxy.wait_for_output("the rules in force stay")
    assert stage.ask().status == 200
    stage.proxy.write_rules(RULES.replace("scheme: bearer", "scheme: x-api-key"))
    stage.proxy.wait_for_output(r"(?s)stay.*rules? in force")
    assert stage.ask().status == 200
    assert auth_fields(stage) == [("x-api-key", GW)]
    stage.proxy.write_rules(RULES)
    stage.proxy.wait_for_output(r"(?s)stay.*rules? in force.*rules? in force")
    assert stage.proxy.output().count("the rules in force stay") == 1


@pytest.mark.parametrize("how", ["does not import", "raises", "deleted", "hollow"])
def test_34_a_broken_script_answers_503(stage_with: StartStage, tmp_path: Path, how: str) -> None:
    addon = tmp_path / "addon"
    shutil.copytree(ROOT / "addon", addon, ignore=shutil.ignore_patterns("__pycache__"))
    script = addon / "gateway.py"
    good = script.read_text()
    stage = stage_with(script=script)
    assert stage.ask().status == 200
    broken = {
        "does not import": "import nowhere_at_all\n",
        "raises": "raise ValueError\n",
        "hollow": "",
    }
    if how == "deleted":
        script.unlink()
    else:
        replace_text(script, broken[how])
    # mitmproxy looks once a second; what is asked meanwhile is still served by the rules.
    deadline = time.monotonic() + 15
    while (answer := stage.ask_anyway()).status != 503:
        assert answer.status == 200
        assert time.monotonic() < deadline
        time.sleep(0.05)
    sent = stage.arrived()
    for target in ("/v1/messages", "/x"):
        assert stage.ask_anyway(target).status == 503
    assert stage.arrived() == sent
    if how == "deleted":
        stage.ends_refusing = True  # until a restart
        return
    replace_text(script, good)
    deadline = time.monotonic() + 15
    while (answer := stage.ask_anyway()).status != 200:
        assert answer.status == 503
        assert time.monotonic() < deadline
        time.sleep(0.05)


def replace_text(file: Path, text: str) -> None:
    """Changes a file at one stroke. mitmproxy goes by the time of the last change, which has the same value for
    emptying a file and for filling it again: in between it would read nothing, and never look again.
    """
    draft = file.with_suffix(".new")
    draft.write_text(text)
    draft.replace(file)


def test_35_keys_in_every_spelling_become_one_header(stage: Stage) -> None:
    names = ["x-api-key", "X-API-KEY", "authorization", "AUTHORIZATION", "api-key", "Api_Key", "X_Api_Key",
             "x-goog-api-key", "anthropic-api-key", "Ocp-Apim-Subscription-Key", "Cookie", "Proxy-Authorization",
             "XApiKey", "x--api--key"]  # fmt: skip
    headers = [("Host", API), JSON, *((name, f"{CK}-{number}") for number, name in enumerate(names))]
    headers += [("Sec-WebSocket-Protocol", f"realtime, openai-insecure-api-key.{CK}")]
    assert stage.ask(headers=headers).status == 200
    assert auth_fields(stage) == [("Authorization", f"Bearer {GW}")]
    assert stage.asked.values("sec-websocket-protocol") == ["realtime"]


def test_35_keys_in_every_spelling_become_one_header_over_http2(stage: Stage) -> None:
    head = [(":method", "POST"), (":scheme", "https"), (":authority", API), (":path", "/v1/messages")]
    keys = [("x-api-key", CK), ("authorization", f"Bearer {CK}"), ("authorization", CK), ("cookie", CK)]
    assert stage.http2().request([*head, *keys], BODY).status == 200
    assert auth_fields(stage) == [("authorization", f"Bearer {GW}")]


@pytest.mark.parametrize(
    "name",
    ["key", "KEY", "api_key", "access_token", "%6bey", "k%65y", "api%5Fkey", "+key", "apikey", "API-Key",
     "x-api-key", "accessToken"],
)  # fmt: skip
def test_36_keys_are_removed_from_the_query_and_the_rest_keeps_every_byte(stage: Stage, name: str) -> None:
    target = f"/v1/x?a=%7e&{name}={CK}&alt=sse&&b=+"
    assert stage.ask(target).status == 200
    assert stage.asked.target == "/v1/x?a=%7e&alt=sse&&b=+"


def test_36_keys_in_the_query_of_a_refused_request_are_not_shown(stage: Stage) -> None:
    headers = [("Host", "evil.test"), CLIENT_KEY]
    stage.assert_refused(stage.ask(f"/v1/x?key={CK}", headers), 421)


@pytest.mark.parametrize(
    "field",
    [
        f"X-A: a\rx-api-key: {CK}",
        f"X-A: a\r\n authorization: Bearer {CK}",
        f"X-A: a\r\n\tx-api-key: {CK}",
        f"X-A: \0{CK}",
    ],
)
def test_37_line_breaks_and_nul_in_header_values_are_400(stage: Stage, field: str) -> None:
    client = stage.tunnel()
    client.send(f"GET /v1/x HTTP/1.1\r\nHost: {API}\r\n{field}\r\n\r\n".encode())
    assert client.read_response().status == 400
    stage.assert_silence()


@pytest.mark.parametrize(
    "value", ["keep-alive, Authorization", "authorization", "x-api-key, AUTHORIZATION ,close"]
)
def test_38_connection_does_not_name_the_auth_header(stage: Stage, value: str) -> None:
    assert stage.ask(headers=[*API_HEADERS, ("Connection", value)]).status == 200
    assert "authorization" not in ",".join(stage.asked.values("connection")).lower()
    assert auth_fields(stage) == [("Authorization", f"Bearer {GW}")]


UNUSABLE = {"crlf": b"abc\r\nX-Evil: 1", "two": b"abc\n\ndef", "blank": b"a b", "nul": b"a\0b", "accent": "é".encode(),
            "empty": b"", "newline": b"\n", "two-newlines": b"abc\n\n"}  # fmt: skip


def test_39_an_unusable_credential_is_refused_without_its_value(
    stage_with: StartStage, tmp_path: Path
) -> None:
    key = tmp_path / "key"
    key.write_bytes(GW.encode())
    key.chmod(0o600)
    stage = stage_with(rules=RULES.replace("{env: GW_KEY}", f"{{file: {key}}}"))
    for value in UNUSABLE.values():
        key.write_bytes(value)
        sent = stage.arrived()
        answer = stage.ask_anyway()
        assert (answer.status, stage.arrived()) == (424, sent), value
    assert "X-Evil" not in stage.proxy.output()
    for usable in (GW, f"{GW}\n", f"{GW}\r\n", f"Bearer {GW}\n"):
        key.write_bytes(usable.encode())
        assert stage.ask().status == 200
        assert auth_fields(stage) == [("Authorization", f"Bearer {GW}")]


CHUNKED = ("Transfer-Encoding", "chunked")
IN_TRAILER = f"2\r\n{{}}\r\n0\r\nx-api-key: {CK}\r\n\r\n".encode()
HTTP2 = [(":method", "POST"), (":scheme", "https"), (":path", "/v1/messages"), (":authority", API)]


@pytest.mark.parametrize("target", ["/v1/messages", "/v1/x"])
def test_40_a_key_in_a_trailer_is_not_forwarded(stage: Stage, target: str) -> None:
    client = stage.tunnel()
    client.send_request("POST", target, [("Host", API), CHUNKED], IN_TRAILER)
    stage.assert_refused(client.read_response(), 400)
    assert stage.ask(client=client).status == 200  # the connection still works


@pytest.mark.parametrize("body", [BODY, b""], ids=["body", "empty"])
def test_40_a_key_in_a_trailer_is_not_forwarded_over_http2(stage: Stage, body: bytes) -> None:
    client = stage.http2()
    stage.assert_refused(client.read_response(client.send_request(HTTP2, body, [("x-api-key", CK)])), 400)
    assert client.request([*HTTP2, CLIENT_KEY], BODY).status == 200


def test_40_a_request_without_a_rule_is_forwarded_without_its_trailers(stage: Stage) -> None:
    client = stage.plain()
    client.send_request("POST", "http://evil.test/x", [("Host", "evil.test"), CHUNKED], IN_TRAILER)
    assert client.read_response().status == 200
    assert stage.evil_plain.requests[-1].body == b"{}"


ELSEWHERE_HTTP2 = [(":method", "POST"), (":scheme", "https"), (":path", "/x"), (":authority", "evil.test")]


def assert_trailers_cut_no_body(stage: Stage) -> None:
    """Send trailers with a body that no rule takes, and receive some."""
    body = b"a" * 300_000
    client = stage.http2("evil.test")
    stage.evil.script = Stream((body, body), gated=False, trailers=(("x-end", "1"),))
    answer = client.read_response(client.send_request(ELSEWHERE_HTTP2, body, [("x-end", "1")]))
    assert answer.body == body + body
    assert stage.evil.requests[-1].body == body
    stage.evil.script = answers


def test_trailers_cut_no_body_that_no_rule_takes(stage: Stage) -> None:
    assert_trailers_cut_no_body(stage)


def test_trailers_cut_no_body_on_its_way_to_http1(stage_over_http1: Stage) -> None:
    assert_trailers_cut_no_body(stage_over_http1)


@pytest.mark.parametrize("over", ["http/1.1", "h2"])
def test_trailers_of_a_response_delay_nothing_and_are_not_kept(stage: Stage, over: str) -> None:
    trailers = (("x-seen", f"Bearer {GW}"), ("server-timing", "total;dur=1"))
    stage.gw.script = Stream(message_events("gw-model"), gated=False, trailers=trailers)
    if over == "h2":
        answer = stage.http2().request([*HTTP2, CLIENT_KEY], BODY)
        assert b"message_stop" in answer.body
    else:
        client = stage.tunnel()
        assert b"message_stop" in stage.ask(client=client).body
        stage.gw.script = answers
        assert stage.ask(client=client).status == 200
    stage.gw.script = answers


@pytest.fixture(scope="module")
def old_upstream(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with Stage(tmp_path_factory.mktemp("http1"), authority, http2=False) as stage:
        yield stage


@pytest.fixture
def stage_over_http1(old_upstream: Stage) -> Iterator[Stage]:
    """A gateway whose upstreams speak HTTP/1 only, whatever its clients speak."""
    with old_upstream.case():
        yield old_upstream


ODD_LINES = {
    "break-in-path": (":path", "/v1/x HTTP/1.1\r\nx-evil: 1"),
    "feed-in-path": (":path", "/v1/x\nx-evil: 1"),
    "blank-in-path": (":path", "/v1/x HTTP/1.1"),
    "tab-in-path": (":path", "/v1/x\ty"),
    "no-slash": (":path", "@evil.test/x"),
    "star": (":path", "*"),
    "break-in-method": (":method", "POST /admin HTTP/1.1\r\n\r\nPOST"),
    "blank-in-method": (":method", "POST /admin"),
}


@pytest.mark.parametrize(("name", "value"), ODD_LINES.values(), ids=ODD_LINES)
def test_41_over_http2_nothing_can_be_injected_into_the_request_line(
    stage_over_http1: Stage, name: str, value: str
) -> None:
    # The upstream speaks HTTP/1, where the line is text: "POST /admin" as a method reaches another path there.
    stage, client = stage_over_http1, stage_over_http1.http2()
    head = [(each, value if each == name else usual) for each, usual in HTTP2]
    with contextlib.suppress(ConnectionError):  # mitmproxy 12 ends the connection for some of them
        stage.assert_refused(client.request([*head, CLIENT_KEY], BODY), 400)


@pytest.mark.parametrize("header", ["authorization:bearer", "x-api-key:", "x-api-key\xa0", "x(y)"])
def test_41_an_invalid_header_name_is_refused(stage_over_http1: Stage, header: str) -> None:
    stage, client = stage_over_http1, stage_over_http1.http2()
    with contextlib.suppress(ConnectionError):
        stage.assert_refused(client.request([*HTTP2, (header, CK)], BODY), 400)


FRAMINGS = {
    "cl-te": "Content-Length: 5\r\nTransfer-Encoding: chunked",
    "two-cl": "Content-Length: 2\r\nContent-Length: 3",
    "plus": "Content-Length: +2",
    "identity": "Transfer-Encoding: chunked, identity",
    "te-odd": "Transfer-Encoding: xchunked",
    "te-space": "Transfer-Encoding : chunked",
    "cl-minus": "Content-Length: -1",
    "cl-hex": "Content-Length: 0x2",
}


@pytest.mark.parametrize("framing", FRAMINGS.values(), ids=FRAMINGS)
@pytest.mark.parametrize("way", ["tunnel", "reverse"])
def test_41_requests_of_ambiguous_length_are_400(stage: Stage, framing: str, way: str) -> None:
    client = stage.tunnel() if way == "tunnel" else stage.reverse()
    client.send(f"POST /v1/x HTTP/1.1\r\nHost: {API}\r\nx-api-key: {CK}\r\n{framing}\r\n\r\n{{}}".encode())
    said = stage.assert_ends(client)
    assert said == b"" or said.startswith(b"HTTP/1.1 400"), said
    stage.assert_silence()


def test_41_http10_with_chunks_is_400(stage: Stage) -> None:
    client = stage.tunnel()
    client.send(f"POST /v1/x HTTP/1.0\r\nHost: {API}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".encode())
    assert stage.assert_ends(client).startswith(b"HTTP/1.1 400")
    stage.assert_silence()


NOT_HTTP = [f"SSH-2.0-{CK}\r\n".encode(), b"\x00\x01" + CK.encode(), f"{CK}\r\n\r\n".encode()]


@pytest.mark.parametrize("data", NOT_HTTP)
@pytest.mark.parametrize("alpn", [("http/1.1",), (), ("other/1",), None])
def test_42_bytes_that_are_not_http_are_refused_on_a_ruled_host(
    stage: Stage, data: bytes, alpn: tuple[str, ...] | None
) -> None:
    if alpn is not None:
        client = stage.tunnel(alpn=alpn)
    else:
        client = stage.plain()
        assert client.connect(f"{API}:443").status == 200
    client.send(data + b"\r\n\r\n")
    said = stage.assert_ends(client)
    assert said == b"" or said.startswith(b"HTTP/1.1 400"), said
    stage.assert_silence()


def test_42_raw_bytes_to_a_host_without_rules_pass_through(stage: Stage) -> None:
    client = stage.tunnel("evil.test", alpn=())
    client.send(b"\x00\x01 not HTTP")
    stage.evil.wait_for_bytes(b"not HTTP")
    client.close()


def test_43_a_replay_has_the_same_destination_path_and_model(
    stage_with: StartStage, mitmdump: StartMitmdump, tmp_path: Path
) -> None:
    stage = stage_with()
    assert stage.ask(f"/v1/messages?beta=true&key={CK}").status == 200
    first = stage.asked
    stage.proxy.stop()
    kept = tmp_path / "recorded"
    shutil.copy(stage.flows, kept)
    before = len(stage.gw.requests)
    # Without `keepserving` mitmdump ends after the replay, in the middle of the next request.
    stage.restart("-C", str(kept), "--set", "client_replay_concurrency=1", "--set", "keepserving=true")
    again = stage.gw.wait_for_request(count=before + 1)
    assert (again.method, again.target, again.body) == (first.method, first.target, first.body)
    assert [value for name, value in again.headers if normal_name(name) in AUTH] == [f"Bearer {GW}"]
    assert again.header("host") == "gw.test"
    assert_absent(stage.gw.raw, "replayed", CK_MARK)


def test_a_client_that_sends_what_a_mask_looks_like_is_served(stage: Stage) -> None:
    headers = [("Host", API), JSON, ("x-api-key", "****cdef"), ("authorization", f"Bearer **** {CK}")]
    assert stage.ask(headers=headers).status == 200
    assert auth_fields(stage) == [("Authorization", f"Bearer {GW}")]


INTERIM = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n"


@pytest.mark.parametrize("way", ["tunnel", "reverse", "http2"])
def test_interim_answers_of_an_upstream_do_not_end_the_request(stage_with: StartStage, way: str) -> None:
    stage = stage_with(http2=False)
    final = (
        b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 20\r\n\r\n{"model":"gw-model"}'
    )
    stage.gw.script = Bytes(INTERIM + final)
    if way == "http2":
        head = [(":method", "POST"), (":scheme", "https"), (":path", "/v1/messages"), (":authority", API)]
        answer = stage.http2().request([*head, CLIENT_KEY], BODY)
    else:
        answer = stage.ask(client=stage.reverse() if way == "reverse" else stage.tunnel())
    assert (answer.status, answer.body) == (200, b'{"model":"claude-x"}')
    assert answer.header("link") is None
    stage.gw.script = answers


def test_an_upstream_that_sends_only_interim_answers_delays_no_other_client(stage: Stage) -> None:
    stage.gw.script = Bytes(INTERIM)
    assert stage.ask().status == 502
    stage.gw.script = answers


@pytest.mark.parametrize("way", ["tunnel", "reverse"])
def test_an_unrequested_switch_of_protocols_opens_no_pipe(stage: Stage, way: str) -> None:
    # The client's next bytes would be forwarded as they are, with its key.
    stage.gw.script = Bytes(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
    client = stage.reverse() if way == "reverse" else stage.tunnel()
    assert stage.ask(client=client).status == 502
    with contextlib.suppress(OSError):
        client.send_request("POST", "/v1/messages", API_HEADERS, BODY)
    assert client.closed_by_peer()
    stage.gw.script = answers


UPGRADE = [("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13"),
           ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")]  # fmt: skip


def test_a_websocket_whose_messages_a_rule_would_map_is_refused(stage: Stage) -> None:
    answer = stage.ask("/v1/realtime", [("Host", API), CLIENT_KEY, *UPGRADE], b"", "GET")
    stage.assert_refused(answer, 426)
    assert answer.header("x-should-retry") == "false"


def test_a_websocket_goes_out_with_the_gateways_key_only(stage: Stage) -> None:
    accept = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    stage.gw.script = Bytes(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n\x81\x02hi"
    )
    client = stage.tunnel("path.test")
    client.send_request("GET", "/v1/realtime", [("Host", "path.test"), CLIENT_KEY, *UPGRADE])
    assert client.read_head()[0] == 101
    stage.gw.wait_for_request("/base/v1/realtime")
    assert auth_fields(stage) == [("Authorization", f"Bearer {GW}")]
    client.close()
    stage.gw.script = answers
