"""All that reaches into mitmproxy's private parts: JSON error pages, a bound on request bodies, `framing`.

Each part looks first whether the inside is as it expects; where it is not, it does nothing and says so
once. The gateway stays correct without them: pages are HTML then, and bodies are measured when complete.
"""

from __future__ import annotations

import atexit
import logging
import time
from collections.abc import Callable, Iterable
from typing import Any

from mitmproxy import http
from mitmproxy.net.http import http1
from mitmproxy.options import Options
from mitmproxy.proxy.layers.http import HttpStream, _http1, _http2
from mitmproxy.proxy.layers.http._events import RequestData, RequestTrailers

from ...wire.refusal import Refusal
from ..patch import Patches, expect
from . import framing

logger = logging.getLogger(__name__)

# Says whether a request's body counts against a limit, in bytes; None where it does not.
BodyLimit = Callable[[http.HTTPFlow], int | None]
Refuse = Callable[[http.HTTPFlow, Refusal], None]

_REASONS = {
    400: "the request is not valid HTTP",
    413: "the body is too large",
    431: "the request's head is too large",
    502: "the upstream cannot be reached or does not answer as HTTP; see the proxy's log",
}


NO_TRAILERS = Refusal(400, "the request has trailers, which are not forwarded; send those fields as headers")


class Insides:
    """The changes made to mitmproxy, and their undoing. One at a time."""

    def __init__(self) -> None:
        self._patches = Patches()

    def install(self, body_limit: BodyLimit, refuse: Refuse) -> None:
        """Puts JSON pages and bounded bodies in place."""
        self.uninstall()
        parts = (
            self._json_pages,
            lambda: self._bounded_bodies(body_limit, refuse),
            lambda: framing.end_at_trailers(self._patches),
            lambda: framing.bound_heads(self._patches),
            lambda: framing.pass_over_interim(self._patches),
        )
        for part in parts:
            try:
                part()
            except (AttributeError, TypeError, ImportError) as fault:
                logger.warning("this mitmproxy is built otherwise than expected: %s", type(fault).__name__)

    def uninstall(self) -> None:
        """Puts mitmproxy's own parts back."""
        self._patches.undo()

    def _json_pages(self) -> None:
        expect(_http1.make_error_response, "status_code", "message")
        expect(vars(_http2)["format_error"], "status_code", "message")
        self._patches.set(_http1, "make_error_response", _json_response)
        self._patches.set(_http2, "format_error", _json_page)

    def _bounded_bodies(self, body_limit: BodyLimit, refuse: Refuse) -> None:
        original = HttpStream.state_consume_request_body
        expect(original, "self", "event")

        def state_consume_request_body(self: Any, event: Any) -> Iterable[Any]:
            """Drops what arrives of a body that is too large or already refused; the rest is mitmproxy's."""
            flow, held = self.flow, self.request_body_buf
            limit = body_limit(flow)
            if isinstance(event, RequestTrailers) and limit is not None and not flow.response:
                refuse(flow, NO_TRAILERS)
            if isinstance(event, RequestData) and limit is not None:
                if not flow.response and len(held) + len(event.data) > limit:
                    refuse(flow, too_large(limit))
                if flow.response:
                    held.clear()
                    return ()
            steps: Iterable[Any] = original(self, event)
            return steps

        self._patches.set(HttpStream, "state_consume_request_body", state_consume_request_body)


def too_large(limit: int) -> Refusal:
    """The refusal of a body over the limit, in bytes."""
    return Refusal(413, f"the request body is larger than gateway_body_limit ({limit} bytes)")


def _json_page(status_code: int, message: str = "") -> bytes:
    # mitmproxy's message may quote what the peer sent, so it goes to the log only.
    reason = _REASONS.get(status_code, "the request could not be completed; see the proxy's log")
    return Refusal(status_code, reason, retry=status_code >= 500).body("/")


def _json_response(status_code: int, message: str = "") -> bytes:
    body = _json_page(status_code, message)
    head = http.Response.make(status_code, body, {"content-type": "application/json", "connection": "close"})
    return bytes(http1.assemble_response(head))


def settle_before_exit() -> None:
    """Lets mitmproxy's native threads come to rest before the interpreter ends.

    mitmproxy 11 has just started them when a faulty start ends the program; one that then calls into a
    finalizing interpreter crashes the process (7 of 40 starts on a busy machine), and the exit status is lost.
    """
    atexit.register(time.sleep, 0.1)


def set_where_unset(options: Options, **values: Any) -> dict[str, Any]:
    """Sets options that exist and that the user said nothing about, and gives those that were set.

    mitmproxy's public `has_changed` compares with the default, so an explicit default looks unset there.
    """
    chosen = {name: value for name, value in values.items() if name in options and _is_unset(options, name)}
    if chosen:
        options.update(**chosen)
    return chosen


def _is_unset(options: Options, name: str) -> bool:
    try:
        from mitmproxy.optmanager import unset

        return options._options[name].value is unset
    except (ImportError, AttributeError, KeyError):
        return not options.has_changed(name)
