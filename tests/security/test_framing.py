"""Acceptance cases 37 and 40 to 42: bytes that two readers may cut differently."""

import contextlib
from collections.abc import Iterator

import pytest

from support.answers import Bytes, Stream, message_events
from support.certificates import Authority
from support.constants import API, CK, CLIENT_KEY, GW
from support.http_client import pseudo_headers
from support.security_stage import API_HEADERS, BODY, Stage, answers
from support.table import table

pytestmark = pytest.mark.e2e


@table(
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


CHUNKED = ("Transfer-Encoding", "chunked")
IN_TRAILER = f"2\r\n{{}}\r\n0\r\nx-api-key: {CK}\r\n\r\n".encode()
HTTP2 = pseudo_headers(API)


@table("target", ["/v1/messages", "/v1/x"])
def test_40_a_key_in_a_trailer_is_not_forwarded(stage: Stage, target: str) -> None:
    client = stage.tunnel()
    stage.warmed_up()
    client.send_request("POST", target, [("Host", API), CHUNKED], IN_TRAILER)
    stage.assert_refused(client.read_response(), 400)
    assert stage.ask(client=client).status == 200  # the connection still works


@table("body", [BODY, b""])
def test_40_a_key_in_a_trailer_is_not_forwarded_over_http2(stage: Stage, body: bytes) -> None:
    client = stage.http2()
    stage.warmed_up()
    stage.assert_refused(client.read_response(client.send_request(HTTP2, body, [("x-api-key", CK)])), 400)
    assert client.request([*HTTP2, CLIENT_KEY], BODY).status == 200


def test_40_a_request_without_a_rule_is_forwarded_without_its_trailers(stage: Stage) -> None:
    client = stage.plain()
    client.send_request("POST", "http://evil.test/x", [("Host", "evil.test"), CHUNKED], IN_TRAILER)
    assert client.read_response().status == 200
    assert stage.evil_plain.requests[-1].body == b"{}"


ELSEWHERE_HTTP2 = pseudo_headers("evil.test", "/x")


def assert_trailers_cut_no_body(stage: Stage) -> None:
    """Send trailers with a body that no rule takes, and receive some."""
    body = b"a" * 300_000
    client = stage.http2("evil.test")
    stage.evil.script = Stream((body, body), gated=False, trailers=(("x-end", "1"),))
    answer = client.read_response(client.send_request(ELSEWHERE_HTTP2, body, [("x-end", "1")]))
    assert answer.body == body + body
    assert stage.evil.requests[-1].body == body


def test_trailers_cut_no_body_that_no_rule_takes(stage: Stage) -> None:
    assert_trailers_cut_no_body(stage)


def test_trailers_cut_no_body_on_its_way_to_http1(stage_over_http1: Stage) -> None:
    assert_trailers_cut_no_body(stage_over_http1)


@table("over", ["http/1.1", "h2"])
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


@table(("name", "value"), ODD_LINES.values())
def test_41_over_http2_nothing_can_be_injected_into_the_request_line(
    stage_over_http1: Stage, name: str, value: str
) -> None:
    # The upstream speaks HTTP/1, where the line is text: "POST /admin" as a method reaches another path there.
    stage, client = stage_over_http1, stage_over_http1.http2()
    head = [(each, value if each == name else usual) for each, usual in HTTP2]
    with contextlib.suppress(ConnectionError):  # mitmproxy 12 ends the connection for some of them
        stage.assert_refused(client.request([*head, CLIENT_KEY], BODY), 400)


@table("header", ["authorization:bearer", "x-api-key:", "x-api-key\xa0", "x(y)"])
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


@table("framing", FRAMINGS.values())
@table("way", ["tunnel", "reverse"])
def test_41_requests_of_ambiguous_length_are_400(stage: Stage, framing: str, way: str) -> None:
    client = stage.client(way)
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


@table("data", NOT_HTTP)
@table("alpn", [("http/1.1",), (), ("other/1",), None])
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


INTERIM = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n"


@table("way", ["tunnel", "reverse", "http2"])
def test_interim_answers_of_an_upstream_do_not_end_the_request(stage_over_http1: Stage, way: str) -> None:
    stage = stage_over_http1
    final = (
        b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 20\r\n\r\n{"model":"gw-model"}'
    )
    stage.gw.script = Bytes(INTERIM + final)
    answer = (
        stage.http2().request([*HTTP2, CLIENT_KEY], BODY)
        if way == "http2"
        else stage.ask(client=stage.client(way))
    )
    assert (answer.status, answer.body) == (200, b'{"model":"claude-x"}')
    assert answer.header("link") is None


def test_an_upstream_that_sends_only_interim_answers_delays_no_other_client(stage: Stage) -> None:
    stage.gw.script = Bytes(INTERIM)
    assert stage.ask().status == 502


@table("way", ["tunnel", "reverse"])
def test_an_unrequested_switch_of_protocols_opens_no_pipe(stage: Stage, way: str) -> None:
    # The client's next bytes would be forwarded as they are, with its key.
    stage.gw.script = Bytes(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
    client = stage.client(way)
    assert stage.ask(client=client).status == 502
    with contextlib.suppress(OSError):
        client.send_request("POST", "/v1/messages", API_HEADERS, BODY)
    assert stage.assert_ends(client) == b""
