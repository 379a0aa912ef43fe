"""HTTP/2 connections whose peer does not read, announces its end, or takes a request back."""

from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

from h2.errors import ErrorCodes
from h2.events import StreamReset
from h2.settings import SettingCodes
from mitmproxy.connection import ConnectionState
from mitmproxy.proxy.layers.http import _http2
from mitmproxy.proxy.layers.http._base import ReceiveHttp
from mitmproxy.proxy.layers.http._events import ResponseProtocolError
from mitmproxy.proxy.layers.http._http_h2 import BufferedH2Connection, SendH2Data

from ..patch import LayerSteps, Patches
from .trim import trim

# Peers may allow frames of 16 MiB, and mitmproxy copies the rest of a frame for each byte that a peer allows.
_FRAME_BYTES = 16 << 10
# Behind these many that wait for a peer to read, small frames are joined.
_SEPARATE_FRAMES = 64


def bound_http2(patches: Patches) -> None:
    """Send frames of the usual size when there is room for them, and forget the unread ones when the peer leaves."""
    patches.wrap(BufferedH2Connection, "_receive_settings_frame", _of_usual_size)
    patches.wrap(BufferedH2Connection, "send_data", _waiting)
    patches.wrap(_http2.Http2Connection, "close_connection", _forgetting)


def _of_usual_size(receive: Any) -> Any:
    def receive_settings_frame(self: Any, frame: Any) -> Any:
        if _FRAME_BYTES < frame.settings.get(SettingCodes.MAX_FRAME_SIZE, 0) < 1 << 24:
            frame.settings[SettingCodes.MAX_FRAME_SIZE] = _FRAME_BYTES
        return receive(self, frame)

    return receive_settings_frame


def _waiting(send: Any) -> Any:
    def send_data(
        self: Any, stream_id: int, data: bytes, end_stream: bool = False, pad_length: None = None
    ) -> None:
        waiting = self.stream_buffers.get(stream_id)
        is_behind = waiting is not None and len(waiting) > _SEPARATE_FRAMES
        if is_behind and len(waiting[-1].data) + len(data) <= _FRAME_BYTES:
            waiting[-1] = SendH2Data(waiting[-1].data + data, end_stream)
        elif not waiting and len(data) <= _FRAME_BYTES and self.local_flow_control_window(stream_id) < 0:
            # The peer has taken room back; mitmproxy takes the negative window for room, and h2 raises.
            self.stream_buffers[stream_id].append(SendH2Data(data, end_stream))
        else:
            send(self, stream_id, data, end_stream, pad_length)

    return send_data


def _forgetting(close: Any) -> Any:
    def close_connection(self: Any, msg: str) -> LayerSteps:
        if isinstance(self, _http2.Http2Client):
            _number_unsent(self)
        yield from close(self, msg)
        if self.h2_conn.stream_buffers:  # which would wait for the garbage collector, with the layers
            self.h2_conn.stream_buffers.clear()
            trim.schedule()

    return close_connection


@dataclass(frozen=True, slots=True)
class _GoingAway:
    """An upstream takes no more requests, and completes those up to this stream."""

    last_stream_id: int


def keep_begun_streams(patches: Patches) -> None:
    """Complete the requests that an upstream had begun to read before it announced its end.

    mitmproxy ends them all. A request that the upstream has cancelled is an error of the upstream: mitmproxy reports it
    like one that the client has cancelled.
    """
    receive, handle = BufferedH2Connection._receive_goaway_frame, _http2.Http2Client.handle_h2_event

    def receive_goaway_frame(self: Any, frame: Any) -> Any:
        state, unsent = self.state_machine.state, bytes(self._data_to_send)
        received = receive(self, frame)
        has_begun = any(
            number <= frame.last_stream_id and stream.open for number, stream in self.streams.items()
        )
        if has_begun and self.config.client_side and frame.error_code == ErrorCodes.NO_ERROR:
            self.state_machine.state = state
            self._data_to_send += unsent
            return [], [_GoingAway(frame.last_stream_id)]
        return received

    def handle_h2_event(self: Any, event: Any) -> Generator[Any, Any, bool]:
        if isinstance(event, _GoingAway):
            yield from _go_away(self, event.last_stream_id)
            return False
        if isinstance(event, StreamReset) and event.error_code == ErrorCodes.CANCEL:
            event.error_code = ErrorCodes.INTERNAL_ERROR
        return (yield from handle(self, event))

    patches.set(BufferedH2Connection, "_receive_goaway_frame", receive_goaway_frame)
    patches.set(_http2.Http2Client, "handle_h2_event", handle_h2_event)


def _go_away(client: Any, last: int) -> LayerSteps:
    """End the streams that the upstream will not answer, and have mitmproxy open another connection for new ones."""
    client.conn.state &= ~ConnectionState.CAN_WRITE
    _number_unsent(client)
    for number in [each for each in client.streams if not 0 < each <= last]:
        del client.streams[number]
        client.h2_conn.stream_buffers.pop(number, None)
        fault = "the server closed the connection before it read the request"
        yield ReceiveHttp(ResponseProtocolError(number, fault, ResponseProtocolError.code))


def _number_unsent(client: Any) -> None:
    """Number the requests that wait for a stream, so that they end with the others."""
    for theirs in client.stream_queue:
        client.their_stream_id[-theirs] = theirs
        client.streams[-theirs] = _http2.StreamState.EXPECTING_HEADERS
    client.stream_queue.clear()
