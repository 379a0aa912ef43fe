"""mitmproxy's own error pages as JSON, in the form of the gateway's refusals, with the cause of a 502."""

import re
from collections.abc import Callable
from functools import wraps
from typing import Any

from mitmproxy import http, version
from mitmproxy.net.http import http1
from mitmproxy.proxy.layers.http import HttpStream, _http1, _http2, _http3
from mitmproxy.proxy.layers.http._events import ResponseProtocolError
from mitmproxy.proxy.layers.http._http_h2 import BufferedH2Connection
from mitmproxy.proxy.layers.http._http_h3 import LayeredH3Connection

from ...exchange.guard import NOT_A_PROXY
from ...llm.apis import Form
from ...llm.errors import error_body, error_headers
from ...wire.refusal import Refusal
from ..patch import LayerSteps, Patches

# Begins the texts of the gateway's own faults, which quote no peer.
OWN_FAULT = "mitm-gateway: "
_REASONS = {
    400: "the request is not valid HTTP",
    413: "the body is too large",
    431: "the request's head is too large",
    502: "the upstream cannot be reached or does not answer as HTTP; see the proxy's log",
}
# A server of TLS 1.3 misses a client's certificate after the handshake. Its alert is lost where its end overtakes it.
_FIRST = " (first request of a TLS 1.3 connection)"
# The words of mitmproxy, OpenSSL and the operating system (Linux, macOS) for each cause of a 502.
_CAUSES = (
    (r"not known|nodename|name resolution|no address associated|getaddrinfo", "the upstream's name was not found"),
    # The last three are those of QUIC.
    (r"certificate.verify|certificate verification|issuer certificate|self.signed certificate|doesn't match",
     "the upstream's certificate is not trusted; for a private CA set ssl_verify_upstream_trusted_ca=FILE"),
    (r"\balert\b", "the upstream ended TLS with an alert; if it wants a client's certificate, set client_certs=FILE"),
    (r"refused HTTP CONNECT request: (\d{3})", "the proxy in front of the upstream refused the connection with {}"),
    (r"refused|connect call failed", "the upstream refused the connection"),
    (r"timed? ?out", "the connection to the upstream timed out"),
    (r"unreachable|no route", "the upstream's network cannot be reached"),
    (r"head is too large", "the head of the upstream's response is too large"),
    (r"smuggling|not an HTTP status|invalid literal", "the head of the upstream's response is malformed"),
    (r"protocol that was not requested", "the upstream switches to a protocol that was not requested"),
    (r"stream reset", "the upstream reset the request"),
    (r"cannot parse|protocol error|does not speak tls|wrong.version", "the upstream does not answer as HTTP, "
     "or not over TLS"),
    (rf"closed.*{re.escape(_FIRST)}", "the upstream closed the connection without an answer; if it wants a client's "
     "certificate, set client_certs=FILE"),
    (r"closed (the )?connection|connection closed|closed early|reset by peer", "the upstream closed the connection "
     "without an answer"),
)  # fmt: skip


def json_pages(patches: Patches) -> None:
    """Replace the HTML pages of every HTTP version; some of them quote the peer."""
    handle = HttpStream.handle_protocol_error
    patches.set(HttpStream, "handle_protocol_error", _noting_the_form(handle, patches.gateway.error_form))
    patches.set(_http1, "make_error_response", _json_response)
    for layer, connection in ((_http2, BufferedH2Connection), (_http3, LayeredH3Connection)):
        patches.set(layer, "format_error", json_page)
        patches.wrap(connection, "send_headers", _as_json)


# The head of a page, behind the status.
_HTML_PAGE = [(b"server", version.MITMPROXY.encode()), (b"content-type", b"text/html")]


def _as_json(send: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(send)
    def send_headers(self: Any, stream_id: int, headers: Any, *more: Any, **options: Any) -> Any:
        if len(headers) == 3 and headers[1:] == _HTML_PAGE:
            headers = [*headers[:2], (b"content-type", b"application/json")]
        return send(self, stream_id, headers, *more, **options)

    return send_headers


class _Message(str):
    """A message of mitmproxy, and the error form of the API that the client asked."""

    form: Form = "anthropic"


def _note(message: str, flow: http.HTTPFlow) -> str:
    """Return the note about an upstream that closes a connection over TLS 1.3 that was opened for this request."""
    server, opened = flow.server_conn, flow.server_conn.timestamp_tls_setup
    is_new = opened is not None and opened >= flow.request.timestamp_start and server.tls_version == "TLSv1.3"
    return _FIRST if is_new and "closed" in message and not message.startswith(OWN_FAULT) else ""


def _noting_the_form(
    handle: Callable[[Any, Any], LayerSteps], error_form: Callable[[http.HTTPFlow], Form]
) -> Callable[[Any, Any], LayerSteps]:
    def handle_protocol_error(self: Any, event: Any) -> LayerSteps:
        if isinstance(event, ResponseProtocolError):
            # The page is made from the message alone, by the connection to the client.
            event.message = message = _Message(event.message + _note(event.message, self.flow))
            message.form = error_form(self.flow)
        return handle(self, event)

    return handle_protocol_error


def json_page(status_code: int, message: str = "") -> bytes:
    """Return the body of an error page."""
    return error_body(_refusal(status_code, message), _form_of(message))


def _form_of(message: str) -> Form:
    return message.form if isinstance(message, _Message) else "anthropic"


def _refusal(status_code: int, message: str) -> Refusal:
    reason = _REASONS.get(status_code, "the request could not be completed; see the proxy's log")
    if status_code == 400 and "HTTP CONNECT request even though" in message:
        reason = NOT_A_PROXY
    if status_code == 502:
        reason = cause_of(message) or reason
    return Refusal(status_code, reason, retry=True)


def _json_response(status_code: int, message: str = "") -> bytes:
    headers = error_headers(_refusal(status_code, message), _form_of(message)) | {"connection": "close"}
    head = http.Response.make(status_code, json_page(status_code, message), headers)
    return bytes(http1.assemble_response(head))


def cause_of(message: str) -> str | None:
    """Return the cause that mitmproxy's message describes; the message may quote the peer, so it is not repeated."""
    if message.startswith(OWN_FAULT):
        return message.removeprefix(OWN_FAULT)
    for pattern, cause in _CAUSES:
        if found := re.search(pattern, message, re.IGNORECASE):
            return cause.format(*found.groups())
    return None
