"""The four invariants as properties: mutated requests and answers through mitmproxy's own layers."""

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from support.constants import API, CK, GW
from support.http_client import pseudo_headers
from support.layers import ANSWER, BODY, KEY, LINE, REQUEST, REST, SOCKET, SOCKET_HOST, WAYS, Gateway
from support.table import table

EVENTS = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    b'3d\r\nevent: message_start\ndata: {"message":{"model":"gw-model"}}\n\n\r\n0\r\n\r\n'
)
TRICKS = [b"\r\n", b"\n", b"\0", b" ", b"\t", b":", b"@", b"//", b"/..", b"%2e", b"\r\n ", b"HTTP/1.0", b"CONNECT",
          b"Transfer-Encoding: chunked\r\n", b"Host: evil.test\r\n", b"Expect: 100-continue\r\n", b"?key=",
          b"Connection: Upgrade\r\nUpgrade: websocket\r\n", b"\\u006d", b'"model":"x",']  # fmt: skip
# Into a head only: a body is the client's own, and kept.
SECOND_KEY = f"\r\nAuthorization: Bearer {CK}\r\n".encode()
shared = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@st.composite
def mutated(draw: st.DrawFn, whole: bytes, *tricks: bytes) -> bytes:
    """Bytes with a few changed, put in, taken out or doubled."""
    data = bytearray(whole)
    for _ in range(draw(st.integers(0, 3))):
        place, length = draw(st.integers(0, max(0, len(data) - 1))), draw(st.integers(0, 6))
        doubled = st.just(bytes(data[place : place + 40]))
        data[place : place + length] = draw(
            st.one_of(st.binary(max_size=4), st.sampled_from([*TRICKS, *tricks]), doubled)
        )
    return bytes(data)


@pytest.mark.parametrize("name", WAYS)
@shared
@given(data=st.data(), cut=st.sampled_from([1, 7, 4096]))
def test_any_request_is_edited_as_the_rule_says_or_not_forwarded(
    gateway: Gateway, name: str, data: st.DataObject, cut: int
) -> None:
    plain = name == "plain"
    line = data.draw(mutated(LINE.replace(b"/v1", f"http://{API}/v1".encode()) if plain else LINE))
    # The key stays in its header: behind the end of a head it would be a part of the body, the client's own.
    assume(b"\n" not in line and b"\r" not in line)
    sent = (line, KEY, data.draw(mutated(REST, SECOND_KEY)), data.draw(mutated(BODY)))
    gateway.check(gateway.exchange(b"\r\n".join(sent), ANSWER, cut, way=WAYS[name]), is_plain=plain)
    gateway.serves_the_next()


@shared
@given(data=st.data(), whole=st.sampled_from([ANSWER, EVENTS]))
def test_no_response_leaves_a_trace_of_a_key(gateway: Gateway, data: st.DataObject, whole: bytes) -> None:
    connection = gateway.exchange(REQUEST, data.draw(mutated(whole)))
    gateway.check(connection, breaks_answer=True)
    gateway.serves_the_next()


@table("key", [GW, CK])
@table("line", ["HTTP/1.1 401 no {}", "HTTP/1.1 200 OK\r\nX-{}: a", "HTTP/1.1 200 OK\r\nX-A: {}"])
def test_a_key_anywhere_in_a_responses_head_is_masked(gateway: Gateway, line: str, key: str) -> None:
    head = f"{line.format(key)}\r\nContent-Length: 0\r\n\r\n".encode()
    gateway.check(gateway.exchange(REQUEST, head), breaks_answer=True)


@shared
@given(data=st.data())
def test_any_request_over_http2_is_edited_as_the_rule_says_or_not_forwarded(
    gateway: Gateway, data: st.DataObject
) -> None:
    head = pseudo_headers(API)
    fields = [(name.encode(), data.draw(mutated(value.encode()))) for name, value in head]
    names = [b"host", b"te", b"connection", b"content-length", b"x-a", *(name for name, _ in fields)]
    values = [b"", b"evil.test", b"trailers", b"5", *(value for _, value in fields)]
    for _ in range(data.draw(st.integers(0, 2))):
        new = data.draw(st.sampled_from(names)), data.draw(mutated(data.draw(st.sampled_from(values))))
        fields.insert(data.draw(st.integers(0, len(fields))), new)
    key = (data.draw(st.sampled_from([b"x-api-key", b"authorization", b"cookie", b"api_key"])), CK.encode())
    h2 = H2Connection(H2Configuration(validate_outbound_headers=False, normalize_outbound_headers=False))
    h2.initiate_connection()
    in_trailer = data.draw(st.booleans())
    h2.send_headers(1, fields if in_trailer else [*fields, key])
    h2.send_data(1, data.draw(mutated(BODY)), end_stream=not in_trailer)
    if in_trailer:
        h2.send_headers(1, [key], end_stream=True)
    way = {**WAYS["tunnel"], "alpn": b"h2"}
    gateway.check(gateway.exchange(h2.data_to_send(), ANSWER, way=way))
    gateway.serves_the_next()


HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n"
INTERIM = {
    "continue": b"HTTP/1.1 100 Continue\r\n\r\n",
    "continue without a reason": b"HTTP/1.1 100\r\n\r\n",
    "processing": b"HTTP/1.1 102 Processing\r\n\r\n",
    "hints": HINTS,
    "unknown": b"HTTP/1.1 199 Odd\r\nContent-Length: 5\r\nConnection: close\r\n\r\n",
    "line feeds": HINTS.replace(b"\r\n", b"\n"),
    "blanks": b"HTTP/1.1  103\tHints\r\n\r\n",
    "many": HINTS * 50,
}


@table("answer", [ANSWER, EVENTS])
@table("cut", [1, 7, 65536])
@table("name", INTERIM)
def test_an_interim_answer_is_not_taken_for_the_answer(
    gateway: Gateway, name: str, cut: int, answer: bytes
) -> None:
    connection = gateway.exchange(REQUEST, INTERIM[name] + answer, answer_cut=cut)
    gateway.check(connection)
    alone = gateway.exchange(REQUEST, answer)
    assert unchunked(connection.got) == unchunked(alone.got)
    assert alone.got.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"claude-x" in alone.got


def unchunked(message: bytes) -> tuple[bytes, bytes]:
    """The head and the whole body of a chunked message."""
    head, _, rest = message.partition(b"\r\n\r\n")
    body = b""
    while rest != b"0\r\n\r\n":
        size, _, rest = rest.partition(b"\r\n")
        body, rest = body + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
    return head, body


def test_after_an_interim_answer_the_connection_serves_the_next(gateway: Gateway) -> None:
    connection = gateway.exchange(REQUEST * 3, HINTS + ANSWER)
    assert connection.got.count(b"HTTP/1.1 200 OK") == connection.got.count(b"claude-x") == 3
    assert b"HTTP/1.1 1" not in connection.got


HANDSHAKE = (
    b"GET /v1/messages HTTP/1.1\r\nHost: " + API.encode() + b"\r\nConnection: Upgrade\r\nUpgrade: %s\r\n"
    b"Sec-WebSocket-Version: %s\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n" + KEY + b"\r\n\r\n"
)


@table("cut", [1, 65536])
@table("answered", [b"other", b"websocket", b"websocket\r\nUpgrade: other"])
@table("first", [REQUEST, HANDSHAKE % (b"other", b"13")])
def test_an_unasked_switch_of_protocols_does_not_open_a_pipe(
    gateway: Gateway, first: bytes, answered: bytes, cut: int
) -> None:
    # The client's next request would be forwarded as it is, with its key.
    sent = first + REQUEST
    switch = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n" % answered
    connection = gateway.exchange(sent, switch, answer_cut=cut)
    gateway.check(connection, breaks_answer=True)
    assert connection.got.startswith(b"HTTP/1.1 502 ")
    gateway.serves_the_next()


@table("cut", [1, 65536])
@table(
    ("version", "answered"),
    [
        *((b"13", each) for each in (b"other", b"websocket\r\nUpgrade: other", b"websocket, other")),
        *((b"8", each) for each in (b"other", b"websocket", b"websocket\r\nUpgrade: other")),
    ],
)
def test_a_websocket_that_becomes_something_else_is_not_opened(
    gateway: Gateway, version: bytes, answered: bytes, cut: int
) -> None:
    sent = (HANDSHAKE % (b"websocket", version)).replace(API.encode(), SOCKET_HOST.encode()) + KEY
    switch = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n" % answered
    connection = gateway.exchange(sent, switch, answer_cut=cut, way=SOCKET)
    gateway.check(connection, breaks_answer=True)
    assert connection.got.startswith(b"HTTP/1.1 502 ")


@pytest.mark.parametrize("version", [b"13", b"8"])
def test_a_websocket_of_a_rule_that_reads_bodies_is_426(gateway: Gateway, version: bytes) -> None:
    connection = gateway.exchange(HANDSHAKE % (b"websocket", version), ANSWER)
    gateway.check(connection)
    assert connection.got.startswith(b"HTTP/1.1 426 ")
    assert b"x-should-retry: false" in connection.got


def test_a_key_that_is_a_word_of_http_does_not_spoil_the_framing(gateway: Gateway) -> None:
    # It is masked before mitmproxy has looked whether the answer is chunked and must be ended.
    sent = b"\r\n".join((LINE, b"x-api-key: chunked", REST, BODY)) * 2
    connection = gateway.exchange(sent, EVENTS)
    assert connection.got.count(b"0\r\n\r\n") == connection.got.count(b"claude-x") == 2
