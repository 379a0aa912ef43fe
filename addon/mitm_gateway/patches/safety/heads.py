"""Limits on heads, before anything looks at them, and requests that HTTP/2 and HTTP/3 call malformed."""

import re
from collections.abc import Callable, Generator, Iterable
from typing import Any

from aioquic.h3.connection import ErrorCode
from aioquic.h3.events import HeadersReceived
from h2.events import RequestReceived
from h11._receivebuffer import ReceiveBuffer
from hpack.huffman import HuffmanEncoder
from mitmproxy.http import Headers, Message, Response
from mitmproxy.net.http import http1
from mitmproxy.proxy import commands, events
from mitmproxy.proxy.layers import tls
from mitmproxy.proxy.layers.http import _http1, _http2, _http3
from mitmproxy.proxy.layers.http._http_h3 import LayeredH3Connection

from ...exchange.guard import MAX_HEAD_BYTES, MAX_HEAD_FIELDS
from ..patch import LayerSteps, Patches, Unexpected
from .framing import fail
from .trim import trim

# The most that a client may send before its first request has been answered.
MAX_AHEAD_BYTES = 8 << 20
# Up to this size an HTTP/2 head is decoded and answered with 431; a larger one ends the connection.
_MAX_DECODED_BYTES = (1 << 20) + (64 << 10)
# A ClientHello with post-quantum keys has about 2 KB; a TLS record has at most 16 KiB.
_MAX_HELLO_BYTES = 32 << 10

# hpack's own way is as fast up to here.
_SHORT_BYTES = 512

# Heads of clients have a few KB; many larger ones at once would stay with the process.
_LARGE_BYTES = 16 << 10

# A smaller head has few fields: each has a name of one byte, a colon and a line break.
_SMALL_BYTES = 3 * MAX_HEAD_FIELDS

_LINE_BREAKS = (b"\r\n", b"\n")
_EMPTY_LINES = re.compile(rb"(?:\r?\n)+")
_UNFINISHED = "gateway_unfinished_head"
_HEAD_END = re.compile(rb"\n\r?\n")
_METHOD = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


# ---- HTTP/1 ----


def bound_http1(patches: Patches) -> None:
    """End a connection whose peer sends an endless head, chunk head or trailer section, or too far ahead."""
    connection, server, client = _http1.Http1Connection, _http1.Http1Server, _http1.Http1Client
    handle = connection._handle_event
    if not hasattr(ReceiveBuffer(), "_multiple_lines_search"):
        raise Unexpected("h11's ReceiveBuffer")
    if not {"read_headers", "read_body", "wait", "done"} <= {*dir(server), *dir(client)}:
        raise Unexpected("Http1Server or Http1Client")

    def watched(self: Any, event: Any) -> LayerSteps:
        yield from handle(self, event)
        # Complete heads and bodies have been taken out of the buffer by now.
        if len(self.buf) > MAX_HEAD_BYTES and _is_overfull(self):
            yield from _give_up(self)

    def handle_event(self: Any, event: Any) -> LayerSteps:
        more = len(event.data) if isinstance(event, events.DataReceived) else 0
        return (watched if len(self.buf) + more > MAX_HEAD_BYTES else handle)(self, event)

    patches.set(connection, "_handle_event", handle_event)
    for owner in (server, client):
        patches.wrap(owner, "read_headers", _bounded)
    for name in ("read_request_head", "read_response_head"):
        patches.wrap(http1, name, _of_known_version)


def _of_known_version(read: Callable[[list[bytes]], Message]) -> Callable[[list[bytes]], Message]:
    """Refuse other versions: mitmproxy forwards any, takes HTTP/2.0 for HTTP/2, and HTTP/0.9 has no response head."""

    def read_known_version(lines: list[bytes]) -> Message:
        message = read(lines)
        if message.http_version not in ("HTTP/1.0", "HTTP/1.1"):
            raise ValueError("unknown HTTP version")
        if isinstance(message, Response):
            _check_status(message.status_code)
        return message

    return read_known_version


def _check_status(status: int) -> None:
    """Raise ValueError for a number that is no HTTP status; mitmproxy forwards any number."""
    if not 100 <= status <= 999:
        raise ValueError("not an HTTP status")


def _bounded(read_headers: Any) -> Any:
    def read_bounded_headers(self: Any, event: Any) -> Any:
        if isinstance(self, _http1.Http1Server):
            if isinstance(event, events.ConnectionClosed):
                # mitmproxy would log the unfinished head, which may contain a key.
                _discard(self.buf)
            elif self.buf._data.startswith(_LINE_BREAKS):
                _skip_empty_lines(self.buf)
        if len(self.buf) > _SMALL_BYTES:
            end = _head_end(self.buf)
            setattr(self.conn, _UNFINISHED, end is None)
            if _is_too_large(self.buf, end):
                return _give_up(self)
        return read_headers(self, event)

    return read_bounded_headers


def _skip_empty_lines(buffer: ReceiveBuffer) -> None:
    """Skip what a server ignores before a request line (RFC 9112, 2.2); mitmproxy would wait for more data."""
    if empty := _EMPTY_LINES.match(buffer._data):
        buffer.maybe_extract_at_most(empty.end())


def has_unfinished_head(connection: Any) -> bool:
    """Return whether a head of several KB is being received on a connection."""
    return bool(connection.__dict__.get(_UNFINISHED))


def _head_end(buffer: ReceiveBuffer) -> int | None:
    """Return where a head ends; h11 then searches no byte of an unfinished one again."""
    data, start = buffer._data, buffer._multiple_lines_search
    has_line_end = data.find(b"\n", start) >= 0  # thirty times as fast as the expression
    if has_line_end and (end := _HEAD_END.search(data, start, MAX_HEAD_BYTES)):
        return end.start()
    buffer._multiple_lines_search = max(0, len(data) - 2)
    return None


def _is_too_large(buffer: ReceiveBuffer, end: int | None) -> bool:
    if end is None:
        return len(buffer) > MAX_HEAD_BYTES
    return buffer._data.count(b"\n", 0, end) > MAX_HEAD_FIELDS


def _is_overfull(connection: Any) -> bool:
    if connection.state == connection.wait:
        return len(connection.buf) > MAX_AHEAD_BYTES
    return connection.state in (connection.read_headers, connection.read_body)


def _give_up(connection: Any) -> LayerSteps:
    is_first = connection.state == connection.read_headers
    _discard(connection.buf)
    if isinstance(connection, _http1.Http1Server) and is_first:
        # There is no flow yet that could be answered.
        connection.state = connection.done
        yield commands.SendData(connection.conn, _http1.make_error_response(431))
        yield commands.CloseConnection(connection.conn)
        yield commands.Log("the request head is too large")
        return
    yield from fail(connection, "the message head is too large")


def _discard(buffer: ReceiveBuffer) -> None:
    if len(buffer) > _LARGE_BYTES:
        trim.schedule()
    buffer.maybe_extract_at_most(len(buffer))


# ---- HTTP/2 and HTTP/3 ----


def _fault(fields: Iterable[tuple[bytes, bytes]], *, has_no_body: bool) -> int | None:
    """Return the status that refuses a request head, or None."""
    size = 0
    for count, (name, value) in enumerate(fields):
        size += len(name) + len(value) + 4  # as HTTP/1 writes it: colon, blank, line break
        if count > MAX_HEAD_FIELDS:
            return 431
        if name == b":method" and not _METHOD.fullmatch(value):
            return 400
        if name == b"content-length" and has_no_body and value.strip(b"0"):
            return 400
    return 431 if size > MAX_HEAD_BYTES else None


def _answer(connection: Any, stream_id: int, status: int) -> None:
    """Answer one stream with an error page in an HTTP/2 or HTTP/3 connection."""
    head = [(b":status", b"%d" % status), (b"content-type", b"application/json")]
    connection.send_headers(stream_id, head)
    connection.send_data(stream_id, vars(_http2)["format_error"](status), end_stream=True)


def check_http2(patches: Patches) -> None:
    """Answer malformed requests, and those with a large head."""
    server = _http2.Http2Server
    create, handle = server.__init__, server.handle_h2_event

    def init(self: Any, context: Any) -> None:
        create(self, context)
        settings = self.h2_conn.local_settings
        settings.max_header_list_size = MAX_HEAD_BYTES
        settings.acknowledge()
        self.h2_conn.decoder.max_header_list_size = _MAX_DECODED_BYTES

    def handle_h2_event(self: Any, event: Any) -> Generator[Any, Any, bool]:
        if isinstance(event, RequestReceived):
            status = _fault(event.headers, has_no_body=bool(event.stream_ended))
            if status is not None:
                _answer(self.h2_conn, event.stream_id, status)
                return False
        return (yield from handle(self, event))

    patches.set(server, "__init__", init)
    patches.set(server, "handle_h2_event", handle_h2_event)
    patches.wrap(_http2, "parse_h2_response_headers", _with_status)


def _with_status(parse: Callable[[Any], tuple[int, Headers]]) -> Callable[[Any], tuple[int, Headers]]:
    def parse_with_status(h2_headers: Any) -> tuple[int, Headers]:
        status, headers = parse(h2_headers)
        _check_status(status)
        return status, headers

    return parse_with_status


def check_http3(patches: Patches) -> None:
    """Answer malformed requests and those with a large head; end a connection that buffers an endless head."""
    handle = LayeredH3Connection.handle_stream_event

    def handle_stream_event(self: Any, event: Any) -> list[Any]:
        found = handle(self, event)
        if self._is_client or self._is_done:
            return found
        stream = self._stream.get(event.stream_id)
        if stream is not None and len(stream.buffer) > MAX_HEAD_BYTES and not stream.ended:
            self.close_connection(ErrorCode.H3_EXCESSIVE_LOAD, reason_phrase="the request head is too large")
            return []
        for each in found:
            if isinstance(each, HeadersReceived):
                status = _fault(each.headers, has_no_body=each.stream_ended)
                if status is not None:
                    _answer(self, each.stream_id, status)
                    # Further data of the client on this stream is discarded.
                    self._closed_streams.add(each.stream_id)
                    return []
        return found

    patches.set(LayeredH3Connection, "handle_stream_event", handle_stream_event)
    patches.wrap(_http3, "parse_h2_response_headers", _with_status)


def encode_linearly(patches: Patches) -> None:
    """Encode long header values as one string of bits; hpack shifts an ever longer number for each byte."""
    coder = HuffmanEncoder
    encode = coder.encode

    def encode_long(self: Any, bytes_to_encode: bytes) -> Any:
        if len(bytes_to_encode) <= _SHORT_BYTES:
            return encode(self, bytes_to_encode)
        codes = [
            f"{code:0{length}b}"
            for code, length in zip(self.huffman_code_list, self.huffman_code_list_lengths, strict=True)
        ]
        bits = "".join([codes[byte] for byte in bytes_to_encode])
        bits += "1" * (-len(bits) % 8)
        return int(bits, 2).to_bytes(len(bits) // 8, "big")

    patches.set(coder, "encode", encode_long)


# ---- TLS ----


def bound_client_hello(patches: Patches) -> None:
    """Close a connection whose ClientHello is larger than any client sends."""
    layer = tls.ClientTLSLayer
    receive = layer.receive_handshake_data

    def receive_handshake_data(self: Any, data: bytes) -> Generator[Any, Any, tuple[bool, str | None]]:
        is_done, error = yield from receive(self, data)
        if not self.client_hello_parsed and len(self.recv_buffer) > _MAX_HELLO_BYTES:
            self.recv_buffer.clear()
            return False, error or "the ClientHello is too large"
        return is_done, error

    patches.set(layer, "receive_handshake_data", receive_handshake_data)
