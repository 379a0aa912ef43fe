"""The head of a request, as it is written to the upstream: the only place where a secret joins it."""

from collections.abc import Callable, Iterable
from typing import Any

from mitmproxy.http import Request
from mitmproxy.proxy import commands
from mitmproxy.proxy.layers.http._base import ReceiveHttp
from mitmproxy.proxy.layers.http._events import RequestHeaders, ResponseProtocolError
from mitmproxy.proxy.layers.http._http1 import Http1Client
from mitmproxy.proxy.layers.http._http2 import Http2Client
from mitmproxy.proxy.layers.http._http3 import Http3Client

from ..patch import Gateway, LayerSteps, Patches

Outgoing = Callable[[Request], Request | None]
_WITHHELD = "the gateway withheld the request; see the proxy's log"


def write_secrets(patches: Patches) -> None:
    """Write the secrets into a request's head while it is assembled; its flow contains masked values only."""
    outgoing = patches.gateway.outgoing
    patches.set(Http1Client, "send", _sending_over_http1(Http1Client.send, patches.gateway))
    for client in (Http2Client, Http3Client):
        patches.set(client, "_handle_event", _sending_over_streams(client._handle_event, outgoing))


def _sending_over_http1(
    send: Callable[[Any, Any], Iterable[Any]], gateway: Gateway
) -> Callable[[Any, Any], Iterable[Any]]:
    outgoing, for_proxy = gateway.outgoing, gateway.for_proxy

    def send_outgoing(self: Any, event: Any) -> Iterable[Any]:
        if type(event) is not RequestHeaders:
            # After a withheld head the connection is closed, and the rest of the request is dropped.
            return () if self.state == self.done and not self.conn.connected else send(self, event)
        request = outgoing(event.request)
        if request is None:
            return _withhold(self, event)
        if self.stream_id is None:
            # The connection keeps the request until its response has ended: the masked one.
            self.stream_id, self.request = event.stream_id, _framed(event.request, event.end_stream)
        request = for_proxy(self.conn, _framed(request, event.end_stream))
        return send(self, RequestHeaders(event.stream_id, request, event.end_stream))

    return send_outgoing


def _withhold(connection: Any, event: Any) -> LayerSteps:
    connection.stream_id, connection.request = event.stream_id, event.request
    connection.state = connection.done
    yield commands.CloseConnection(connection.conn)
    yield _failure(event)


def _sending_over_streams(
    handle: Callable[[Any, Any], LayerSteps], outgoing: Outgoing
) -> Callable[[Any, Any], LayerSteps]:
    def handle_outgoing(self: Any, event: Any) -> LayerSteps:
        if type(event) is not RequestHeaders:
            yield from handle(self, event)
        elif (request := outgoing(event.request)) is None:
            yield _failure(event)  # the rest of the message is dropped: its stream was never opened
        else:
            sent = RequestHeaders(event.stream_id, request, event.end_stream)
            yield from handle(self, sent)
            _keep_masked(self, sent, event)

    return handle_outgoing


def _keep_masked(connection: Any, sent: Any, event: Any) -> None:
    """Let a request that waits for one of the upstream's streams wait without its secrets, and get them when it leaves."""
    waiting = getattr(connection, "stream_queue", {}).get(event.stream_id)  # HTTP/3 has no queue
    if waiting and waiting[0] is sent:
        waiting[0] = event


def _failure(event: Any) -> ReceiveHttp:
    return ReceiveHttp(ResponseProtocolError(event.stream_id, _WITHHELD, ResponseProtocolError.code))


def _framed(request: Request, has_ended: bool) -> Request:
    """Return the request framed for HTTP/1 where HTTP/2 needs no framing: its body would be lost."""
    headers = request.headers
    if has_ended or not request.is_http2 or "content-length" in headers or "transfer-encoding" in headers:
        return request
    framed = request.copy()
    framed.headers["transfer-encoding"] = "chunked"
    return framed
