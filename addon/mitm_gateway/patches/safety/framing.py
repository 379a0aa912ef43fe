"""HTTP/1 messages that mitmproxy cannot end: trailers, heads without a limit, interim responses."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterable
from typing import Any

from h11._readers import ChunkedReader
from h11._receivebuffer import ReceiveBuffer
from mitmproxy import http
from mitmproxy.proxy import commands, events
from mitmproxy.proxy.layers.http import _http1
from mitmproxy.proxy.layers.http._base import ReceiveHttp
from mitmproxy.proxy.layers.http._events import RequestTrailers, ResponseTrailers

from ..patch import Patches, Unexpected, expect

Steps = Generator[Any, Any, None]

# The default of Go's server; those of nginx and Node are smaller.
MAX_HEAD_BYTES = 1 << 20
# The most that a client may send before its first request has been answered.
MAX_AHEAD_BYTES = 8 << 20


def end_at_trailers(patches: Patches) -> None:
    """End a message with trailers; mitmproxy raises, and both sides wait.

    A request's flow then has empty trailers, which the gateway refuses. Trailers of a response are dropped, and so
    are those that HTTP/2 brings for HTTP/1, as RFC 9110, 6.5.1 permits.
    """
    connection, server, client = _http1.Http1Connection, _http1.Http1Server, _http1.Http1Client
    read_body = connection.read_body
    if not any("trailers are not implemented" in str(each) for each in read_body.__code__.co_consts):
        raise Unexpected("Http1Connection.read_body")

    def chunked(self: Any, event: Any) -> Steps:
        try:
            yield from read_body(self, event)
        except NotImplementedError:  # raised after the whole body has been forwarded
            yield from _end_message(self)

    def read_body_with_trailers(self: Any, event: Any) -> Steps:
        # Only a chunked body can have trailers.
        return (chunked if isinstance(self.body_reader, ChunkedReader) else read_body)(self, event)

    patches.set(connection, "read_body", read_body_with_trailers)
    for owner, trailers in ((server, ResponseTrailers), (client, RequestTrailers)):
        patches.set(owner, "send", _without(owner.send, trailers))


def _end_message(connection: Any) -> Steps:
    is_request = isinstance(connection, _http1.Http1Server)
    if is_request:
        yield ReceiveHttp(RequestTrailers(connection.stream_id, http.Headers()))
    yield ReceiveHttp(connection.ReceiveEndOfMessage(connection.stream_id))
    yield from connection.mark_done(request=is_request, response=not is_request)


def _without(send: Callable[[Any, Any], Steps], kind: type) -> Callable[[Any, Any], Iterable[Any]]:
    def send_without(self: Any, event: Any) -> Iterable[Any]:
        return () if isinstance(event, kind) else send(self, event)

    return send_without


# mitmproxy's reading of a status line: any white space, leading zeros.
_INTERIM = re.compile(rb"HTTP/\d\.\d\s+0*1\d\d\s")
_SWITCH = re.compile(rb"HTTP/\d\.\d\s+0*101\s")


def skip_interim(patches: Patches) -> None:
    """Drop an upstream's interim responses (100, 102, 103), as mitmproxy does over HTTP/2.

    Over HTTP/1 it takes one for the final response, and the client waits. A 101 that the request did not ask for ends
    the request: it would join both sides by a raw pipe and forward the next request unchanged, key included.
    """
    client = _http1.Http1Client
    read_headers = client.read_headers
    expect(read_headers, "self", "event")
    if not hasattr(ReceiveBuffer, "maybe_extract_lines") or not hasattr(ReceiveBuffer, "__bytes__"):
        raise Unexpected("h11's ReceiveBuffer")

    def read_final_headers(self: Any, event: Any) -> Steps:
        if self.request and isinstance(event, events.DataReceived):
            while _INTERIM.match(head := bytes(self.buf)):
                if _SWITCH.match(head) and "upgrade" in self.request.headers:
                    break
                if self.buf.maybe_extract_lines() is None:
                    return
                if _SWITCH.match(head):
                    yield from _fail(
                        self, "the upstream switches protocols although the request did not ask for it"
                    )
                    return
        yield from read_headers(self, event)

    patches.set(client, "read_headers", read_final_headers)


def bound_heads(patches: Patches) -> None:
    """End a connection whose peer sends an endless head, chunk head or trailer section, or too far ahead."""
    connection = _http1.Http1Connection
    handle = connection._handle_event
    if not {"read_headers", "read_body", "wait", "done"} <= {
        *dir(_http1.Http1Server),
        *dir(_http1.Http1Client),
    }:
        raise Unexpected("Http1Server or Http1Client")

    def watched(self: Any, event: Any) -> Steps:
        yield from handle(self, event)
        # Complete heads and bodies have been taken out of the buffer by now.
        if len(self.buf) > MAX_HEAD_BYTES and _is_overfull(self):
            yield from _give_up(self)

    def handle_event(self: Any, event: Any) -> Steps:
        more = len(event.data) if isinstance(event, events.DataReceived) else 0
        return (watched if len(self.buf) + more > MAX_HEAD_BYTES else handle)(self, event)

    patches.set(connection, "_handle_event", handle_event)


def _is_overfull(connection: Any) -> bool:
    if connection.state == connection.wait:
        return len(connection.buf) > MAX_AHEAD_BYTES
    return connection.state in (connection.read_headers, connection.read_body)


def _give_up(connection: Any) -> Steps:
    is_first = connection.state == connection.read_headers
    connection.state = connection.done
    if isinstance(connection, _http1.Http1Server) and is_first:
        # There is no flow yet that could be answered.
        yield commands.SendData(connection.conn, _http1.make_error_response(431))
        yield commands.CloseConnection(connection.conn)
        yield commands.Log("the request head is too large")
        return
    yield from _fail(connection, "the message head is too large")


def _fail(connection: Any, reason: str) -> Steps:
    kind = connection.ReceiveProtocolError
    connection.state = connection.done
    yield commands.CloseConnection(connection.conn)
    yield ReceiveHttp(kind(connection.stream_id, reason, code=kind.code))
