"""HTTP/1 messages that mitmproxy cannot end: those with trailers, and interim responses."""

import re
from collections.abc import Callable, Iterable
from typing import Any

from h11._readers import ChunkedReader
from h11._receivebuffer import ReceiveBuffer
from mitmproxy import http
from mitmproxy.proxy import commands, events
from mitmproxy.proxy.layers.http import _http1
from mitmproxy.proxy.layers.http._base import ReceiveHttp
from mitmproxy.proxy.layers.http._events import RequestTrailers, ResponseTrailers

from ..patch import LayerSteps, Patches, Unexpected

# A stream has fewer in what is received at once; behind these, chunks are joined.
_SEPARATE_CHUNKS = 64


def end_at_trailers(patches: Patches) -> None:
    """End a message with trailers; mitmproxy raises, and both sides wait.

    A request's flow then has empty trailers, which the gateway refuses. Trailers of a response are dropped, and so
    are those that HTTP/2 brings for HTTP/1, as RFC 9110, 6.5.1 permits.
    """
    connection, server, client = _http1.Http1Connection, _http1.Http1Server, _http1.Http1Client
    read_body = connection.read_body
    if not any("trailers are not implemented" in str(each) for each in read_body.__code__.co_consts):
        raise Unexpected("Http1Connection.read_body")

    def chunked(self: Any, event: Any) -> LayerSteps:
        held: list[Any] = []
        has_trailers = False
        try:
            for command in read_body(self, event):
                if isinstance(command, ReceiveHttp) and type(command.event) is self.ReceiveData:
                    held.append(command.event)
                else:
                    yield from _passed_on(held)
                    yield command
        except NotImplementedError:  # mitmproxy's answer to trailers, after it has read the whole body
            has_trailers = True
        yield from _passed_on(held)
        if has_trailers:
            yield from _end_message(self)

    def read_body_with_trailers(self: Any, event: Any) -> LayerSteps:
        # Only a chunked body can have trailers.
        return (chunked if isinstance(self.body_reader, ChunkedReader) else read_body)(self, event)

    patches.set(connection, "read_body", read_body_with_trailers)
    for owner, trailers in ((server, ResponseTrailers), (client, RequestTrailers)):
        patches.set(owner, "send", _without(owner.send, trailers))


def _passed_on(received: list[Any]) -> LayerSteps:
    contents = divided([each.data for each in received])
    for each, content in zip(received, contents, strict=False):
        each.data = content
        yield ReceiveHttp(each)
    received.clear()


def divided(contents: list[bytes]) -> list[bytes]:
    """Return the contents of chunks that arrived together; of many the last are joined, because each passes all layers."""
    first, others = contents[:_SEPARATE_CHUNKS], contents[_SEPARATE_CHUNKS:]
    return [*first, b"".join(others)] if others else first


def _end_message(connection: Any) -> LayerSteps:
    is_request = isinstance(connection, _http1.Http1Server)
    if is_request:
        yield ReceiveHttp(RequestTrailers(connection.stream_id, http.Headers()))
    yield ReceiveHttp(connection.ReceiveEndOfMessage(connection.stream_id))
    yield from connection.mark_done(request=is_request, response=not is_request)


def _without(send: Callable[[Any, Any], LayerSteps], kind: type) -> Callable[[Any, Any], Iterable[Any]]:
    def send_without(self: Any, event: Any) -> Iterable[Any]:
        return () if isinstance(event, kind) else send(self, event)

    return send_without


# mitmproxy's reading of a status line: any white space, leading zeros.
_INTERIM = re.compile(rb"HTTP/\d\.\d\s+0*1\d\d\s")
_UPGRADE = re.compile(rb"\n[ \t]*upgrade[ \t]*:([^\r\n]*)", re.IGNORECASE)
_SWITCH = re.compile(rb"HTTP/\d\.\d\s+0*101\s")
_MAX_LINE_BYTES = 8 << 10


def skip_interim(patches: Patches) -> None:
    """Drop an upstream's interim responses (100, 102, 103), as mitmproxy does over HTTP/2.

    Over HTTP/1 it takes one for the final response, and the client waits. A 101 that the request did not ask for ends
    the request: it would join both sides by a raw pipe and forward the next request unchanged, key included.
    """
    client = _http1.Http1Client
    read_headers = client.read_headers
    if not hasattr(ReceiveBuffer, "maybe_extract_lines") or not isinstance(ReceiveBuffer()._data, bytearray):
        raise Unexpected("h11's ReceiveBuffer")

    def read_after_interim(self: Any, event: Any) -> LayerSteps:
        while _INTERIM.match(line := _first_line(self.buf)):
            if _SWITCH.match(line) and _switches_to_websocket(self):
                break
            if self.buf.maybe_extract_lines() is None:
                return
            if _SWITCH.match(line):
                yield from fail(self, "the upstream switches to a protocol that was not requested")
                return
        yield from read_headers(self, event)

    def read_final_headers(self: Any, event: Any) -> Any:
        is_interim = (
            self.request and isinstance(event, events.DataReceived) and _INTERIM.match(_first_line(self.buf))
        )
        return (read_after_interim if is_interim else read_headers)(self, event)

    patches.set(client, "read_headers", read_final_headers)


def _switches_to_websocket(connection: Any) -> bool:
    """Return whether both sides say WebSocket, as far as received; mitmproxy makes a raw pipe of anything else."""
    if "upgrade" not in connection.request.headers or not connection.context.options.websocket:
        return False
    head = bytes(connection.buf)
    protocols = _UPGRADE.findall(head)
    is_whole = b"\n\r\n" in head or b"\n\n" in head
    return not is_whole or [protocol.strip().lower() for protocol in protocols] == [b"websocket"]


def _first_line(buffer: ReceiveBuffer) -> bytes:
    """Return the status line once it is complete; reading part of it for each piece takes quadratic time."""
    end: int = buffer._data.find(b"\n", 0, _MAX_LINE_BYTES)
    return bytes(buffer._data[: end + 1])


def fail(connection: Any, reason: str) -> LayerSteps:
    """Close a connection and end its stream with a protocol error."""
    kind = connection.ReceiveProtocolError
    connection.state = connection.done
    yield commands.CloseConnection(connection.conn)
    yield ReceiveHttp(kind(connection.stream_id, reason, code=kind.code))
