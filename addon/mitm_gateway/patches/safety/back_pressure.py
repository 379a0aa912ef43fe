"""Back-pressure: a peer that sends on a stream waits while the HTTP/2 peer that receives it does not read."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from mitmproxy.connection import Connection, Server
from mitmproxy.proxy import commands, events, server
from mitmproxy.proxy.layers.http import SendHttp, _http1, _http2
from mitmproxy.proxy.layers.http._base import HttpEvent
from mitmproxy.proxy.layers.http._events import RequestData, ResponseData
from mitmproxy.proxy.layers.http._http_h2 import BufferedH2Connection
from mitmproxy.proxy.tunnel import TunnelLayer

from ..patch import LayerSteps, Patches

# Bytes that wait for a receiver before its sender is held back; with half of them left it goes on.
_FULL_BYTES = 512 << 10
# An HTTP/2 peer that is held back sends up to this much of a stream before it waits. mitmproxy allows 2 GiB.
_WINDOW_BYTES = 4 << 20
# Pieces of a request that wait for one of the upstream's streams.
_QUEUED_PIECES = 16
_READING = "gateway_reading"


@dataclass
class Hold(HttpEvent):
    """Hold back the peer that sends on this stream, or let it go on."""

    is_on: bool


def hold_back(patches: Patches) -> None:
    """Hold back a sender that is faster than its HTTP/2 peer reads, on that stream alone.

    An HTTP/2 sender is held back by its window: what it has sent is acknowledged later. A connection over HTTP/1
    belongs to one stream, and is not read meanwhile.
    """
    create, acknowledge = BufferedH2Connection.__init__, BufferedH2Connection.acknowledge_received_data

    def init(self: Any, config: Any) -> None:
        create(self, config)
        self.local_settings.initial_window_size = _WINDOW_BYTES
        self.local_settings.acknowledge()

    def acknowledge_received_data(self: Any, acknowledged_size: int, stream_id: int) -> None:
        held = self.__dict__.get("gateway_held")
        if held and stream_id in held:
            held[stream_id] += acknowledged_size
        else:
            acknowledge(self, acknowledged_size, stream_id)

    patches.set(BufferedH2Connection, "__init__", init)
    patches.set(BufferedH2Connection, "acknowledge_received_data", acknowledge_received_data)
    for owner, kind in ((_http2.Http2Server, ResponseData), (_http2.Http2Client, RequestData)):
        patches.set(owner, "_handle_event", _with_http2(owner._handle_event, kind))
    patches.wrap(_http1.Http1Connection, "_handle_event", _with_http1)
    _pause_connections(patches)


# ---- HTTP/2 ----


def _with_http2(
    handle: Callable[[Any, Any], LayerSteps], kind: type[HttpEvent]
) -> Callable[[Any, Any], LayerSteps]:
    def handle_event(self: Any, event: Any) -> LayerSteps:
        if type(event) is Hold:
            yield from _hold_window(self, event)
            return
        stream_id = event.stream_id if type(event) is kind else None
        yield from handle(self, event)
        held = self.__dict__.get("gateway_senders")
        if held:
            for each in [each for each in held if not _is_full(self, each, _FULL_BYTES // 2)]:
                yield SendHttp(Hold(each, False), held.pop(each))
        if stream_id is not None and _is_full(self, stream_id, _FULL_BYTES):
            yield from _hold_sender(self, stream_id)

    return handle_event


def _is_full(layer: Any, stream_id: int, limit: int) -> bool:
    """Return whether more than `limit` bytes of a stream wait for the layer's peer."""
    number = stream_id
    if isinstance(layer, _http2.Http2Client):
        if len(layer.stream_queue.get(stream_id, ())) > _QUEUED_PIECES:
            return True
        number = layer.our_stream_id.get(stream_id, 0)
    for waiting in layer.h2_conn.stream_buffers.get(number, ()):
        limit -= len(waiting.data)
        if limit < 0:
            return True
    return False


def _hold_sender(layer: Any, stream_id: int) -> LayerSteps:
    held: dict[int, Connection] = vars(layer).setdefault("gateway_senders", {})
    connection = _sender(layer, stream_id)
    if connection is not None and stream_id not in held:
        held[stream_id] = connection
        yield SendHttp(Hold(stream_id, True), connection)


def _sender(layer: Any, stream_id: int) -> Connection | None:
    """Return the connection on which the data of a stream is received; HTTP/3 cannot be held back."""
    connection: Connection | None = layer.context.client
    if isinstance(layer, _http2.Http2Server):
        layers = layer.context.layers
        http: Any = layers[layers.index(layer) - 1]
        stream = http.streams.get(stream_id)
        connection = stream.context.server if stream is not None else None
        if connection not in http.connections:
            return None  # answered locally
    return connection if connection is not None and connection.transport_protocol == "tcp" else None


def _hold_window(layer: Any, hold: Hold) -> LayerSteps:
    """Acknowledge what a peer sends on a stream later, or all of it now."""
    connection, number = layer.h2_conn, hold.stream_id
    if isinstance(layer, _http2.Http2Client):
        number = layer.our_stream_id.get(number, 0)
    held: dict[int, int] = vars(connection).setdefault("gateway_held", {})
    if hold.is_on:
        held.setdefault(number, 0)
    elif size := held.pop(number, 0):
        connection.acknowledge_received_data(size, number)
        yield commands.SendData(layer.conn, connection.data_to_send())


# ---- HTTP/1 ----


class Reading:
    """The reading of a connection: paused while it is held back, even if other code resumes it."""

    def __init__(self, transport: Any, slots: asyncio.Semaphore | None) -> None:
        self.is_held = False
        self._transport = transport
        self._slots = slots
        self._resume = transport.resume_reading
        transport.resume_reading = self.resume

    def hold(self) -> None:
        """Read no more, and release the place of this connection if only a few connections may be open at once."""
        self.is_held = True
        if self._slots is not None:
            self._slots.release()
            self._slots = None
        if not self._transport.get_write_buffer_size():
            self._transport.pause_reading()

    def go_on(self) -> None:
        """Read again."""
        self.is_held = False
        self._resume()

    def resume(self) -> None:
        """Read again, unless the connection is held back."""
        if not self.is_held:
            self._resume()

    def give_way(self) -> None:
        """Read while data for the peer is still unsent: it may have to write before it reads on."""
        if self.is_held and self._transport.get_write_buffer_size():
            self._resume()

    def end(self) -> None:
        """Leave the transport as it was."""
        del self._transport.resume_reading


def _with_http1(handle: Callable[[Any, Any], Iterable[Any]]) -> Callable[[Any, Any], Iterable[Any]]:
    def handle_event(self: Any, event: Any) -> Iterable[Any]:
        if type(event) is Hold:
            return _hold_connection(self, event)
        if type(event) is events.DataReceived and (reading := self.__dict__.get(_READING)):
            reading.hold()  # the connection has been read for another reason
        return handle(self, event)

    return handle_event


def _hold_connection(layer: Any, hold: Hold) -> LayerSteps:
    reading = _reading(layer)
    if reading is not None:
        (reading.hold if hold.is_on else reading.go_on)()
        layer.gateway_reading = reading if hold.is_on else None
    yield from ()


def _reading(layer: Any) -> Reading | None:
    """Return the reading of a layer's connection, or of the one that it is tunnelled through."""
    connection = layer.conn
    for each in reversed(layer.context.layers):
        if isinstance(each, TunnelLayer) and each.conn is connection:
            connection = each.tunnel_connection
    reading: Reading | None = connection.__dict__.get(_READING)
    return reading


def _pause_connections(patches: Patches) -> None:
    handler = server.ConnectionHandler
    serve: Any = handler.handle_connection
    drain: Any = handler.drain_writers

    async def handle_connection(self: Any, connection: Any) -> None:
        writer = self.transports[connection].writer
        if isinstance(writer, asyncio.StreamWriter):
            slots = self.max_conns[connection.address] if isinstance(connection, Server) else None
            setattr(connection, _READING, Reading(writer.transport, slots))
        try:
            await serve(self, connection)
        finally:
            if reading := connection.__dict__.pop(_READING, None):
                reading.end()
            # Cancelled a second time, mitmproxy leaves the connection open, and reads and drops all that it receives.
            io = self.transports.get(connection)
            if io is not None and io.writer is not None:
                io.writer.close()

    async def drain_writers(self: Any) -> None:
        for connection in self.transports:
            if reading := connection.__dict__.get(_READING):
                reading.give_way()
        await drain(self)

    patches.set(handler, "handle_connection", handle_connection)
    patches.set(handler, "drain_writers", drain_writers)
