"""mitmproxy's own error pages as JSON, in the form of the gateway's refusals."""

from __future__ import annotations

from mitmproxy import http
from mitmproxy.net.http import http1
from mitmproxy.proxy.layers.http import _http1, _http2

from ...llm.errors import error_body
from ...wire.refusal import Refusal
from ..patch import Patches, expect

_REASONS = {
    400: "the request is not valid HTTP",
    413: "the body is too large",
    431: "the request's head is too large",
    502: "the upstream cannot be reached or does not answer as HTTP; see the proxy's log",
}


def json_pages(patches: Patches) -> None:
    """Replace the HTML pages of both HTTP versions."""
    expect(_http1.make_error_response, "status_code", "message")
    expect(vars(_http2)["format_error"], "status_code", "message")
    patches.set(_http1, "make_error_response", _json_response)
    patches.set(_http2, "format_error", _json_page)


def _json_page(status_code: int, message: str = "") -> bytes:
    # mitmproxy's message may quote the peer, so only the log contains it.
    reason = _REASONS.get(status_code, "the request could not be completed; see the proxy's log")
    return error_body(Refusal(status_code, reason, retry=status_code >= 500), "anthropic")


def _json_response(status_code: int, message: str = "") -> bytes:
    body = _json_page(status_code, message)
    head = http.Response.make(status_code, body, {"content-type": "application/json", "connection": "close"})
    return bytes(http1.assemble_response(head))
