"""The limit on a request body, enforced while it arrives."""

from typing import Any

from mitmproxy.proxy.layers.http import HttpStream
from mitmproxy.proxy.layers.http._events import RequestData, RequestTrailers

from ...exchange.steps import NO_TRAILERS, too_large
from ..patch import Patches


def limit_bodies(patches: Patches) -> None:
    """Refuse a body over the limit as soon as it exceeds it, and discard the rest."""
    original = HttpStream.state_consume_request_body
    body_limit, refuse = patches.gateway.body_limit, patches.gateway.refuse

    def state_consume_request_body(self: Any, event: Any) -> Any:
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
        return original(self, event)

    patches.set(HttpStream, "state_consume_request_body", state_consume_request_body)
