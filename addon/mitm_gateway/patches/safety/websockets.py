"""WebSockets: no peer can hold up the others with frames, or fill the memory with a message."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from mitmproxy.proxy import commands, events
from mitmproxy.proxy.layers.websocket import WebsocketConnection, WebsocketLayer
from wsproto.events import CloseConnection, Message

from ..patch import LayerSteps, Patches

# The default of `gateway_body_limit`: Codex sends whole conversations in one message.
MAX_MESSAGE_BYTES = 64 << 20
_TOO_BIG = 1009  # RFC 6455, 7.4.1
# A piece of compressed data unpacks to half a MiB at most, and has at most 256 frames.
_PIECE_BYTES = 512
# After this many frames the others have their turn; each takes up to 0.2 ms.
_FRAMES_A_TURN = 16
# Behind these, fragments below mitmproxy's own size are joined: each would become a separate frame.
_KEPT_FRAGMENTS, _LEAST_FRAGMENT = 64, 4000


def bound_websockets(patches: Patches) -> None:
    """Read frames in turns, and end a socket whose message is larger than any API's.

    mitmproxy reads everything that has arrived in one go, ten thousand pings among it, and adds each piece of a message
    to a copy of all before it.
    """
    patches.wrap(WebsocketConnection, "events", _bounded)
    patches.wrap(WebsocketLayer, "relay_messages", _in_turns)
    patches.set(WebsocketLayer, "done", lambda self, _: ())


def _in_turns(relay: Any) -> Any:
    def relay_in_turns(self: Any, event: events.Event) -> LayerSteps:
        waiting: deque[events.Event] = self.__dict__.setdefault("gateway_waiting", deque())
        if not isinstance(event, events.Wakeup):
            is_waiting = bool(waiting)
            waiting.extend(_pieces(event))
            if is_waiting:  # behind the wakeup that is due
                return
        self.client_ws.frames_read = self.server_ws.frames_read = 0
        while waiting and self._handle_event != self.done:
            if self.client_ws.frames_read + self.server_ws.frames_read >= _FRAMES_A_TURN:
                yield commands.RequestWakeup(0)
                return
            yield from relay(self, waiting.popleft())

    return relay_in_turns


def _pieces(event: events.Event) -> Iterator[events.Event]:
    if not isinstance(event, events.DataReceived) or len(event.data) <= _PIECE_BYTES:
        yield event
        return
    for place in range(0, len(event.data), _PIECE_BYTES):
        yield events.DataReceived(event.connection, event.data[place : place + _PIECE_BYTES])


def _bounded(read: Any) -> Any:
    def events_within_bounds(self: Any) -> Iterable[Any]:
        for event in read(self):
            self.frames_read = getattr(self, "frames_read", 0) + 1
            if not isinstance(event, Message):
                yield event
                continue
            size = self.__dict__.get("message_bytes", 0) + len(event.data)
            if size > MAX_MESSAGE_BYTES:
                self.frame_buf = [b""]
                yield CloseConnection(code=_TOO_BIG, reason="the message is too large")
                return
            self.message_bytes = 0 if event.message_finished else size
            fragment = self.frame_buf[-1]
            if not isinstance(fragment, bytearray):
                fragment = self.frame_buf[-1] = bytearray(fragment)
            is_short = len(fragment) + len(event.data) < _LEAST_FRAGMENT and not event.message_finished
            is_joined = is_short and len(self.frame_buf) > _KEPT_FRAGMENTS
            yield replace(event, frame_finished=False) if is_joined else event

    return events_within_bounds
