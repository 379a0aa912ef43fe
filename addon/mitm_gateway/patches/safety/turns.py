"""Turns: other connections have theirs before a peer's next HTTP/2 frames or HTTP/1 request are handled."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

from mitmproxy.proxy import commands, events, server
from mitmproxy.proxy.layers.http._http1 import Http1Server
from mitmproxy.proxy.layers.http._http2 import Http2Client, Http2Server

from ..patch import LayerSteps, Patches

# A ping takes 13 µs, a request that is reset at once half a millisecond.
_FRAMES_A_TURN = 16
# A request that is answered locally takes as long.
_REQUESTS_A_TURN = 8
_PREFACE_BYTES = len(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
_WAITING = "gateway_waiting_data"


# ---- HTTP/1 ----


def divide_requests(patches: Patches) -> None:
    """Handle a few requests of a client at a time, and receive no more from it while others of its requests wait.

    mitmproxy handles all that it has received and that need no upstream in one go: three thousand in 64 KB.
    """
    read: Callable[[Any, Any], LayerSteps] = Http1Server.read_headers

    def read_headers(self: Any, event: Any) -> LayerSteps:
        # At the end of a request, mitmproxy calls this for what it has received after that.
        if not isinstance(event, events.DataReceived) or event.data or self.stream_id // 2 % _REQUESTS_A_TURN:
            return read(self, event)
        return _await_turn(self, event, read)

    patches.set(Http1Server, "read_headers", read_headers)


def _await_turn(layer: Any, following: Any, read: Callable[[Any, Any], LayerSteps]) -> LayerSteps:
    wakeup = commands.RequestWakeup(0)
    ends: list[events.ConnectionClosed] = []

    def wait(event: events.Event) -> LayerSteps:
        if isinstance(event, events.ConnectionClosed):
            ends.append(event)  # behind the requests
        elif isinstance(event, events.Wakeup) and event.command is wakeup:
            layer.conn.__dict__.pop(_WAITING, None)
            layer.state = layer.read_headers
            yield from read(layer, following)
            for end in ends:
                yield from layer.state(end)

    layer.state = wait
    setattr(layer.conn, _WAITING, True)
    yield wakeup


# ---- HTTP/2 ----


def divide_frames(patches: Patches) -> None:
    """Handle a few frames at a time, and receive no more from a peer while some of its frames wait.

    mitmproxy handles all that it has received in one go: twenty thousand frames in a quarter of a megabyte.
    """
    drain: Any = server.ConnectionHandler.drain_writers
    for owner, begin in ((Http2Server, _PREFACE_BYTES), (Http2Client, 0)):
        patches.set(owner, "_handle_event", _in_turns(owner._handle_event, begin))

    async def drain_writers(self: Any) -> None:
        while any(map(has_waiting_data, self.transports)):  # noqa: ASYNC110 (each turn takes one pass of the loop)
            await asyncio.sleep(0)
        await drain(self)

    patches.set(server.ConnectionHandler, "drain_writers", drain_writers)


def has_waiting_data(connection: Any) -> bool:
    """Return whether received data of a connection waits for its turn."""
    return _WAITING in connection.__dict__


class _Frames:
    """Received data, divided into the frames of one turn each."""

    def __init__(self, begin: int) -> None:
        self.waiting: deque[events.ConnectionEvent] = deque()
        self.wakeup: commands.RequestWakeup | None = None
        self._left = begin
        """Bytes until the next frame."""
        self._held = b""
        """The beginning of a frame's length."""

    def divide(self, data: bytes) -> Iterator[bytes]:
        """Return the pieces of the data."""
        data = self._held + data
        start, place, count = 0, self._left, 0
        while place + 3 <= len(data):
            place += 9 + int.from_bytes(data[place : place + 3], "big")
            count += 1
            if count % _FRAMES_A_TURN == 0 and place < len(data):
                yield data[start:place]
                start = place
        end = min(place, len(data))
        self._held, self._left = data[end:], place - end
        if start < end:
            yield data[start:end]


def _in_turns(handle: Callable[[Any, Any], Any], begin: int) -> Callable[[Any, Any], LayerSteps]:
    def handle_in_turns(self: Any, event: Any) -> LayerSteps:
        frames: _Frames = self.__dict__.get("gateway_frames") or _Frames(begin)
        self.gateway_frames = frames
        if isinstance(event, events.DataReceived):
            pieces = frames.divide(event.data)
            frames.waiting.extend(events.DataReceived(event.connection, piece) for piece in pieces)
            if frames.wakeup is None:
                yield from _take_turn(self, frames, handle)
        elif frames.wakeup is None:
            yield from handle(self, event)
        elif isinstance(event, events.Wakeup) and event.command is frames.wakeup:
            yield from _take_turn(self, frames, handle)
        elif isinstance(event, events.ConnectionClosed) and isinstance(self, Http2Client):
            frames.waiting.append(event)  # behind the rest of the responses
        else:
            yield from handle(self, event)
            if self._handle_event == self.done:
                _end_turns(self, frames)

    return handle_in_turns


def _take_turn(layer: Any, frames: _Frames, handle: Callable[[Any, Any], Any]) -> LayerSteps:
    if frames.waiting:
        yield from handle(layer, frames.waiting.popleft())
    if not frames.waiting or layer._handle_event == layer.done:
        _end_turns(layer, frames)
        return
    setattr(layer.conn, _WAITING, True)
    frames.wakeup = commands.RequestWakeup(0)
    yield frames.wakeup


def _end_turns(layer: Any, frames: _Frames) -> None:
    frames.waiting.clear()
    frames.wakeup = None
    layer.conn.__dict__.pop(_WAITING, None)
