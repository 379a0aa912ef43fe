"""Heads are bounded before anything looks at them, and malformed HTTP/2 and HTTP/3 requests are refused."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, ResponseReceived, StreamEnded
from h11 import _receivebuffer
from hpack import Encoder
from hyperframe.frame import HeadersFrame, SettingsFrame
from hypothesis import given
from hypothesis import strategies as st
from mitmproxy import options
from mitmproxy.proxy import events
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers import ClientTLSLayer, ServerTLSLayer
from mitmproxy.proxy.layers.http._http_h3 import LayeredH3Connection
from mitmproxy.proxy.layers.quic import QuicStreamDataReceived, SendQuicStreamData
from mitmproxy.test import taddons, tflow

from mitm_gateway.patches.safety import heads
from support.layers import HOST, HTTP2_PREFACE, TUNNEL, Connection, connected, pieces
from support.patched import applied

LIMIT = 128 << 10
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
SERVED = {**TUNNEL, "answer": ANSWER}
H2 = {**SERVED, "alpn": b"h2"}
Fields = Sequence[tuple[str, str]]
GET: Fields = ((":method", "GET"), (":scheme", "https"), (":authority", HOST), (":path", "/"))


def http1(padding: int, line: bytes = b"GET / HTTP/1.1") -> bytes:
    return b"%s\r\nHost: %s\r\nX-A: %s\r\n\r\n" % (line, HOST.encode(), b"a" * padding)


@pytest.mark.parametrize("cut", [1000, 65536, 1 << 20])
async def test_an_http1_head_up_to_128_kib_is_served_and_a_larger_one_is_431(
    patched: taddons.context, cut: int
) -> None:
    fits = LIMIT - len(http1(0))
    served = await connected(patched, *pieces(http1(fits), cut), **SERVED)
    assert served.got == ANSWER
    refused = await connected(patched, *pieces(http1(fits + 1) * 2, cut), **TUNNEL)
    assert refused.got.startswith(b"HTTP/1.1 431 ")
    assert b"application/json" in refused.got
    assert not any(refused.sent.values())
    assert not refused.client.connected


@pytest.mark.parametrize("blank", [b"\r\n", b"\n", b"\r\n\r\n\n"])
async def test_empty_lines_before_a_request_line_are_ignored(patched: taddons.context, blank: bytes) -> None:
    request = http1(1)
    served = await connected(patched, blank + request, **SERVED)
    assert served.got == ANSWER
    served = await connected(patched, request + blank + request, **SERVED)
    assert served.got == ANSWER * 2
    served = await connected(patched, *pieces(request + blank + request, 1), **SERVED)
    assert served.got == ANSWER * 2


async def test_no_byte_of_an_unfinished_http1_head_is_searched_twice(
    patched: taddons.context, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched = 0

    def search(data: bytes, start: int, end: int | None = None) -> None:
        nonlocal searched
        searched += len(data) - start

    for owner, name in ((heads, "_HEAD_END"), (_receivebuffer, "blank_line_regex")):
        monkeypatch.setattr(owner, name, SimpleNamespace(search=search))
    head = b"GET / HTTP/1.1\r\n" + b"a:\r\n" * 900 + b"X-A: " + b"a" * (120 << 10)
    connection = await connected(patched, *pieces(head, 4096), **TUNNEL)
    assert heads.has_unfinished_head(connection.client)
    assert searched <= len(head)
    await connection.close()


@pytest.mark.parametrize(
    ("head", "status"),
    [
        pytest.param(b"GET /" + b"a" * LIMIT, 431, id="endless path"),
        pytest.param(b"GET / HTTP/1.1\r\n" + b"a:\r\n" * 100_000, 431, id="endless fields"),
        pytest.param(b"a" * (LIMIT + 1), 431, id="endless method"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: h\r\n" + b" " * LIMIT, 431, id="endless blanks"),
        *(pytest.param(http1(1, b"GET / HTTP/%s" % version), 400, id=f"version {version.decode()}")
          for version in (b"0.9", b"1.2", b"2.0", b"3.0", b"9.9")),
    ],
)  # fmt: skip
async def test_an_invalid_http1_head_is_refused_at_once(
    patched: taddons.context, head: bytes, status: int
) -> None:
    refused = await connected(patched, *pieces(head, 65536), **TUNNEL)
    assert refused.got.startswith(b"HTTP/1.1 %d " % status)
    assert not any(refused.sent.values())


@pytest.mark.parametrize("cut", [1, 1000, 65536])
async def test_an_http1_head_of_more_than_a_thousand_fields_is_431(
    patched: taddons.context, cut: int
) -> None:
    head = b"GET / HTTP/1.1\r\nHost: %s\r\n%%s\r\n" % HOST.encode()
    served = await connected(patched, *pieces(head % (b"a:\r\n" * 999) + b"\n" * 2000, cut), **SERVED)
    assert served.got.startswith(ANSWER)
    refused = await connected(patched, *pieces(head % (b"a:\r\n" * 1000), cut), **TUNNEL)
    assert refused.got.startswith(b"HTTP/1.1 431 ")
    assert not any(refused.sent.values())


async def test_an_http2_head_of_more_than_a_thousand_fields_is_431(patched: taddons.context) -> None:
    client = await Http2.connected(patched)
    assert (await client.ask([*GET, *[("x-a", "")] * 1000]))[0] == 431
    assert client.upstream == b""
    assert await client.ask([*GET, *[("x-a", "")] * 990]) == (200, b"ok")


async def test_the_second_head_of_a_connection_is_bounded_too(patched: taddons.context) -> None:
    connection = await connected(patched, http1(1) + http1(LIMIT), **SERVED)
    assert connection.got.startswith(ANSWER + b"HTTP/1.1 431 ")
    assert connection.sent[HOST, 443].count(b"GET") == 1


@pytest.mark.parametrize(
    "rest",
    [
        pytest.param(b"1;" + b"a" * LIMIT, id="chunk"),
        pytest.param(b"0\r\n" + b"x-a: b\r\n" * (LIMIT // 8 + 1), id="trailers"),
    ],
)
async def test_an_endless_part_of_a_chunked_body_ends_the_connection(
    patched: taddons.context, rest: bytes
) -> None:
    head = b"POST / HTTP/1.1\r\nHost: %s\r\nTransfer-Encoding: chunked\r\n\r\n" % HOST.encode()
    connection = await connected(patched, *pieces(head + rest, 65536), **TUNNEL)
    assert not connection.client.connected
    assert (b"the message head is too large" in connection.got) or not connection.got


async def test_a_client_cannot_send_far_ahead_of_its_answers(patched: taddons.context) -> None:
    connection = await connected(patched, http1(1), **TUNNEL)
    for _ in range(heads.MAX_AHEAD_BYTES >> 20):
        await connection.receive(b"a" * (1 << 20))
    assert connection.client.connected
    await connection.receive(b"a")
    assert not connection.client.connected


@pytest.mark.parametrize(
    ("start", "fields"),
    [
        pytest.param(b"HTTP/1.1 200 OK", b"X-A: " + b"a" * LIMIT + b"\r\n", id="over the limit"),
        pytest.param(b"HTTP/1.1 200 OK", b"a:\r\n" * 1000, id="more than a thousand fields"),
        *(pytest.param(b"HTTP/%s 200 OK" % version, b"", id=f"version {version.decode()}")
          for version in (b"0.9", b"1.2", b"2.0", b"9.9")),
        *(pytest.param(b"HTTP/1.1 %s X" % status, b"", id=f"status {status.decode()}")
          for status in (b"99", b"0", b"-200", b"1000", b"12345")),
    ],
)  # fmt: skip
async def test_an_invalid_http1_response_head_is_502(
    patched: taddons.context, start: bytes, fields: bytes
) -> None:
    answer = start + b"\r\nContent-Length: 0\r\n" + fields + b"\r\n"
    connection = await connected(patched, http1(1), **TUNNEL, answer=answer)
    assert connection.got.startswith(b"HTTP/1.1 502 ")


async def test_an_unfinished_head_is_not_logged(patched: taddons.context) -> None:
    connection = await connected(patched, b"GET / HTTP/1.1\r\nX-Api-Key: client-key", **TUNNEL)
    await connection.close()
    assert not any("client-key" in line for line in connection.logged)


class Http2:
    """An HTTP/2 client in a tunnel."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._h2 = H2Connection(H2Configuration(validate_outbound_headers=False))
        self._read = 0

    @classmethod
    async def connected(cls, context: taddons.context) -> Http2:
        client = cls(await connected(context, **H2))
        client._h2.initiate_connection()
        return client

    async def ask(self, fields: Fields, body: bytes | None = None) -> tuple[int, bytes]:
        """Send a request; return the status and body, or 0 if the connection has ended."""
        stream = self._h2.get_next_available_stream_id()
        self._h2.send_headers(stream, fields, end_stream=body is None)
        if body is not None:
            self._h2.send_data(stream, body, end_stream=True)
        await self._connection.receive(self._h2.data_to_send())
        got, self._read = self._connection.got[self._read :], len(self._connection.got)
        status, data = 0, b""
        for event in self._h2.receive_data(got):
            if isinstance(event, ResponseReceived) and event.stream_id == stream:
                head: dict[Any, Any] = dict(event.headers)  # h2 4.1 gives text, 4.3 bytes
                status = int(head.get(":status") or head[b":status"])
            if isinstance(event, DataReceived) and event.stream_id == stream:
                data += event.data
            if isinstance(event, StreamEnded) and event.stream_id == stream:
                return status, data
        return 0, data

    @property
    def upstream(self) -> bytes:
        return b"".join(self._connection.sent.values())


@pytest.mark.parametrize("padding", [LIMIT, 200_000, 900_000])
async def test_an_http2_head_over_128_kib_is_431_and_the_connection_serves_on(
    patched: taddons.context, padding: int
) -> None:
    client = await Http2.connected(patched)
    status, body = await client.ask([*GET, ("x-a", "a" * padding)])
    assert status == 431
    assert b"the request's head is too large" in body
    assert client.upstream == b""
    assert await client.ask([*GET, ("x-a", "a" * 100_000)]) == (200, b"ok")


async def test_a_small_http2_head_that_unpacks_to_megabytes_ends_the_connection(
    patched: taddons.context,
) -> None:
    # A field of 4 KB, and bytes of which each repeats it; reading a megabyte of them would take a second.
    bomb = Encoder().encode([*GET, ("x-a", "a" * 4000)]) + b"\xbe" * 1000
    head = HeadersFrame(1, data=bomb, flags=["END_HEADERS", "END_STREAM"])
    connection = await connected(
        patched, HTTP2_PREFACE + SettingsFrame(0).serialize() + head.serialize(), **H2
    )
    assert not connection.client.connected
    assert b"431" not in connection.got
    assert not any(connection.sent.values())


@given(st.binary(max_size=2000))
def test_long_header_values_are_encoded_as_hpack_encodes_them(value: bytes) -> None:
    expected = Encoder().huffman_coder.encode(value)
    with applied("http2-encoding"):
        assert Encoder().huffman_coder.encode(value) == expected


@pytest.mark.parametrize("method", ["", " ", "G T", "GET\r\nX-A: 1", "GET / HTTP/1.1"])
async def test_an_http2_request_whose_method_is_no_token_is_400(
    patched: taddons.context, method: str
) -> None:
    client = await Http2.connected(patched)
    assert (await client.ask([(":method", method), *GET[1:]]))[0] in (0, 400)
    assert client.upstream == b""


@pytest.mark.parametrize("length", ["5", "05", "1"])
async def test_an_http2_request_with_a_length_but_no_body_is_400(
    patched: taddons.context, length: str
) -> None:
    client = await Http2.connected(patched)
    post = [(":method", "POST"), *GET[1:], ("content-length", length)]
    assert (await client.ask(post))[0] == 400
    assert client.upstream == b""
    assert await client.ask([(":method", "POST"), *GET[1:], ("content-length", "0")]) == (200, b"ok")


class Http3:
    """Both ends of an HTTP/3 connection without QUIC between them."""

    def __init__(self) -> None:
        connection = tflow.tclient_conn()
        self._client = LayeredH3Connection(connection, is_client=True)
        self.server = LayeredH3Connection(connection, is_client=False)
        self.commands: list[Any] = []

    def ask(self, fields: Fields, *, ended: bool = True) -> list[Any]:
        """Send a request head; return what the server's HTTP layer receives."""
        stream = self._client.get_next_available_stream_id()
        self._client.send_headers(stream, [(a.encode(), b.encode()) for a, b in fields], end_stream=ended)
        return self.deliver()

    def deliver(self) -> list[Any]:
        found = []
        for command in self._client.transmit():
            if isinstance(command, SendQuicStreamData):
                event = QuicStreamDataReceived(
                    command.connection, command.stream_id, command.data, command.end_stream
                )
                found += self.server.handle_stream_event(event)
        self.commands += self.server.transmit()
        return found

    @property
    def answers(self) -> bytes:
        data = [each.data for each in self.commands if isinstance(each, SendQuicStreamData)]
        return b"".join(data)


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param([*GET, ("x-a", "a" * 3000)], id="large"),
        pytest.param([(":method", ""), *GET[1:]], id="no method"),
    ],
)
async def test_an_http3_request_that_is_too_large_or_malformed_is_answered_locally(
    patched: taddons.context, fields: Fields, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heads, "MAX_HEAD_BYTES", 2000)  # aioquic's client encodes no large head
    http3 = Http3()
    assert http3.ask(fields) == []
    assert b"mitm-gateway" in http3.answers
    assert [type(each).__name__ for each in http3.ask(GET)] == ["HeadersReceived"]


async def test_an_endless_http3_head_ends_the_connection(patched: taddons.context) -> None:
    http3 = Http3()
    http3.ask(GET)
    event = QuicStreamDataReceived(
        tflow.tclient_conn(), 4, b"\x01\x80\x10\x00\x00" + b"a" * (LIMIT + 1), False
    )
    assert http3.server.handle_stream_event(event) == []
    http3.commands += http3.server.transmit()
    assert "CloseQuicConnection" in [type(each).__name__ for each in http3.commands]


async def test_an_endless_client_hello_ends_the_connection(patched: taddons.context) -> None:
    client = tflow.tclient_conn()
    outer = Context(client, options.Options())
    ServerTLSLayer(outer)
    layer = ClientTLSLayer(outer)
    list(layer.handle_event(events.Start()))
    hello = b"\x01\x80\x00\x00" + b"a" * 16380  # a handshake message of 8 MiB
    sizes = []
    for place in range(20):
        record = b"\x16\x03\x01\x40\x00" + (hello if place == 0 else b"a" * 16384)
        list(layer.handle_event(events.DataReceived(client, record)))
        sizes.append(len(layer.recv_buffer))
    assert max(sizes) < 64 << 10
    assert sizes[-1] == 0
