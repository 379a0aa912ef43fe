"""The requests under way: a flow, its exchange and its credentials, from the request head to the record."""

import logging
from dataclasses import dataclass

from mitmproxy import http
from mitmproxy.connection import ConnectionState
from mitmproxy.websocket import WebSocketMessage

from ..credentials.store import Credentials
from ..exchange.exchange import Exchange
from ..exchange.record import Ending
from ..exchange.tee import Tee
from ..llm.apis import Form
from ..text.printable import one_line
from ..text.redact import fields_masked_exactly, masked_exactly
from ..wire.refusal import ANY_FAULT, Refusal
from ..wire.request import Fields, as_bytes, as_text
from .flows import error_form, place_of, refuse
from .log_filter import unquoted

logger = logging.getLogger(__name__)

# mitmproxy looks at its timeout now and then, and counts from its own last activity.
_TIMEOUT_MARGIN_S = 1.0
# A message takes about as much besides its content.
MESSAGE_BYTES = 512
_CLOSED_WITHOUT_A_WORD = 1006  # RFC 6455, 7.4.1


@dataclass(slots=True)
class UnderWay:
    """A flow that has not ended, its exchange, and the credentials of the rules that it began with."""

    flow: http.HTTPFlow
    request: http.Request
    exchange: Exchange
    credentials: Credentials
    request_tee: Tee | None = None
    kept_bytes: int = 0
    """Bytes of the WebSocket's messages that the flow contains."""

    @property
    def size(self) -> int:
        """Return the bytes of the bodies and messages that the flow contains."""
        response = self.flow.response
        answered = response.raw_content if response else None
        return len(self.flow.request.raw_content or b"") + len(answered or b"") + self.kept_bytes


class Requests(dict[str, UnderWay]):
    """The requests under way, by the id of their flow."""

    def __init__(self) -> None:
        super().__init__()
        self._by_request: dict[int, UnderWay] = {}
        self.streaming: set[str] = set()
        """The flows whose response has begun and whose length is unknown."""

    def begin(self, flow: http.HTTPFlow, exchange: Exchange, credentials: Credentials) -> UnderWay:
        """Add a request."""
        entry = UnderWay(flow, flow.request, exchange, credentials)
        self[flow.id] = self._by_request[id(entry.request)] = entry
        return entry

    def begin_response(self, flow: http.HTTPFlow) -> None:
        """Note whether the response of a request streams."""
        if flow.response is not None and "content-length" not in flow.response.headers:
            self.streaming.add(flow.id)

    def end(self, flow: http.HTTPFlow) -> UnderWay | None:
        """Forget a request, and return it."""
        entry = self.pop(flow.id, None)
        self.streaming.discard(flow.id)
        if entry is not None:
            self._by_request.pop(id(entry.request), None)
        return entry

    def outgoing(self, request: http.Request) -> http.Request | None:
        """Return a request as it is written to its upstream; None where it must not leave."""
        try:
            return self._outgoing(request)
        except ANY_FAULT as fault:
            logger.error("a request was withheld: %s", type(fault).__name__)  # noqa: TRY400 - no text of the fault
            return None

    def _outgoing(self, request: http.Request) -> http.Request | None:
        entry = self._by_request.get(id(request))
        if entry is None:  # another addon has replaced it
            entry = next((each for each in self.values() if each.flow.request is request), None)
        if entry is None or not entry.exchange.is_released or not entry.exchange.allows(place_of(request)):
            logger.error("a request was withheld: its rule does not send it there")
            return None
        if entry.exchange.plan is None:
            return request
        target, fields = entry.exchange.with_secrets(as_text(request.data.path), request.data.headers.fields)
        return _with_head(request, as_bytes(target), fields)

    def body_limit(self, flow: http.HTTPFlow) -> int | None:
        """Return how many bytes a request's body may have; None where no rule takes it, and where it is not held."""
        entry = self.get(flow.id)
        if entry is None or entry.exchange.is_passing or entry.request_tee is not None:
            return None
        return entry.exchange.config.body_limit

    def error_form(self, flow: http.HTTPFlow) -> Form:
        """Return the error form of the API that a request asks."""
        entry = self.get(flow.id)
        return error_form(flow.request, entry.exchange if entry else None)

    def refuse(self, flow: http.HTTPFlow, refusal: Refusal) -> None:
        """Refuse a request while its body is being received."""
        entry = self.get(flow.id)
        refuse(flow, refusal, entry.exchange if entry else None)


def _with_head(request: http.Request, path: bytes, fields: Fields) -> http.Request:
    """Return a copy with another head and no body; mitmproxy's constructors check the type of each part again."""
    copied, data = object.__new__(http.Request), object.__new__(http.RequestData)
    headers = object.__new__(http.Headers)
    headers.fields = fields
    data.__dict__ |= {
        **request.data.__dict__,
        "path": path,
        "headers": headers,
        "content": None,
        "trailers": None,
    }
    copied.data = data
    return copied


def stream_request(entry: UnderWay) -> None:
    """Let the body of a request stream from its first byte, with a bounded copy for display."""
    if entry.flow.request.raw_content is None:
        entry.request_tee = Tee(entry.exchange.config.capture, None, None)
        entry.flow.request.stream = entry.request_tee.feed


def keep_bodies(entry: UnderWay) -> None:
    """Put the copies of what has passed into a flow that has ended, without the secrets that its end may contain."""
    flow, exchange = entry.flow, entry.exchange
    if entry.request_tee is not None and entry.request_tee.has_fed:
        flow.request.raw_content = entry.request_tee.kept()
        exchange.record.bytes_out = entry.request_tee.size
        entry.request_tee.close()
    if flow.websocket is not None and (reason := flow.websocket.close_reason):
        # The peer's frame has been forwarded as it is; mitmproxy prints and keeps the text.
        hidden = () if exchange.is_passing else exchange.hidden
        flow.websocket.close_reason = one_line(masked_exactly(reason, hidden))
    tee, response, has_streamed = exchange.tee, flow.response, False
    # Another addon may have replaced the response that was to stream.
    if tee is not None and response is not None and (tee.has_fed or response.raw_content is None):
        response.raw_content, has_streamed = tee.kept(), True
    if exchange.is_passing and tee is not None:
        tee.close()
    if exchange.config.reveal or exchange.is_passing:
        return
    if response is not None and not has_streamed:  # the head of one that streams has been masked
        response.headers.fields = fields_masked_exactly(response.headers.fields, exchange.all_keys)
    if response is not None and response.trailers is not None:
        response.trailers.fields = fields_masked_exactly(response.trailers.fields, exchange.all_keys)
    if flow.error is not None:
        # It quotes what a peer sent.
        flow.error.msg = unquoted(flow.error.msg, exchange.all_keys)


def note_message(entry: UnderWay) -> None:
    """Count the newest message of a WebSocket; of the older ones keep as many as `gateway_capture` allows."""
    socket, limit = entry.flow.websocket, entry.exchange.config.capture
    assert socket is not None
    newest = socket.messages[-1]
    entry.exchange.on_message(newest.content, from_client=newest.from_client)
    entry.kept_bytes += len(newest.content) + MESSAGE_BYTES
    if entry.kept_bytes <= limit:
        return
    if len(newest.content) > limit:  # mitmproxy sends the message itself, which is no longer in the list
        socket.messages[-1] = WebSocketMessage(
            newest.type, newest.from_client, newest.content[:limit], newest.timestamp
        )
    kept, size = 0, 0
    for message in reversed(socket.messages):
        size += len(message.content) + MESSAGE_BYTES
        if kept and size > limit * 3 // 4:
            break
        kept += 1
    del socket.messages[:-kept]
    entry.kept_bytes = sum(len(message.content) + MESSAGE_BYTES for message in socket.messages)


def ending_of(flow: http.HTTPFlow, silence_s: float, timeout_s: float) -> Ending:
    """Return who ended a flow. mitmproxy closes a connection that has been silent for `timeout_s`."""
    if flow.websocket is not None and flow.websocket.close_code == _CLOSED_WITHOUT_A_WORD:
        return "client_left" if flow.websocket.closed_by_client else "broke_off"
    if flow.error is None:
        return "complete"
    if flow.error.msg == flow.error.KILLED_MESSAGE:
        return "client_left"
    if not flow.client_conn.state & ConnectionState.CAN_READ:
        return "timed_out" if silence_s >= timeout_s - _TIMEOUT_MARGIN_S else "client_left"
    # mitmproxy reports either side's reset in these words; an upstream has little reason to cancel.
    is_cancelled = flow.request.is_http2 and "reset by client (CANCEL)" in flow.error.msg
    return "client_left" if is_cancelled else "broke_off"
