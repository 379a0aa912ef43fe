"""The end of the addon chain: what other addons did after the gateway must not undo what it promised."""

from __future__ import annotations

import logging
from collections.abc import Callable

from mitmproxy import ctx, http
from mitmproxy.proxy.server_hooks import ServerConnectionHookData

from ..addresses import Upstream, is_loopback
from ..refusals import Refusal
from .exchange import Exchange
from .handling import Handling

logger = logging.getLogger(__name__)

_MOVED = Refusal(502, "another addon moved the request away from where its rule sends it")


class LastLook:
    """Runs after all other addons: the destination is the rule's, the body is not streamed past its edits."""

    name = "gateway-lastlook"

    def __init__(self, exchange: Exchange, own_ports: Callable[[], frozenset[int]]) -> None:
        self._exchange = exchange
        self._own_ports = own_ports

    def requestheaders(self, flow: http.HTTPFlow) -> None:
        """The head as it will leave, or as the body is waited for."""
        handling = self._exchange.get(flow)
        if handling is None or not flow.live:
            return
        if flow.response or handling.reads_body:
            flow.request.stream = False
        self._check(flow, handling)

    def request(self, flow: http.HTTPFlow) -> None:
        """The request as it will leave."""
        handling = self._exchange.get(flow)
        if handling is None or not flow.live:
            return
        self._check(flow, handling)
        if not flow.response:
            self._exchange.sign(flow)
        handling.answered_here = flow.response is not None

    def _check(self, flow: http.HTTPFlow, handling: Handling) -> None:
        if handling.plan is None or flow.response:
            return
        request, destination = flow.request, handling.plan.destination
        place = (request.scheme, request.host, request.port)
        named = request.authority or request.headers.get("host", "")
        if (
            place != (destination.scheme, destination.host, destination.port)
            or named != destination.authority
        ):
            self._exchange.refuse(flow, _MOVED)

    def server_connect(self, data: ServerConnectionHookData) -> None:
        """The last moment before a connection is opened."""
        address = data.server.address
        if address is None:
            return
        host, port = address[0], address[1]
        if port in self._own_ports() and (host == "localhost" or is_loopback(host)):
            data.server.error = "mitm-gateway: a request must not come back to this proxy or to mitmweb"
            return
        planned = self._exchange.planned_for(data.client.id)
        if not planned or any(_leads_to(each, data) for each in planned):
            return
        passing = self._exchange.passing_for(data.client.id)
        if not any((flow.request.host, flow.request.port) == (host, port) for flow in passing):
            data.server.error = "mitm-gateway: the connection is not to where the rule sends the request"


def _leads_to(handling: Handling, data: ServerConnectionHookData) -> bool:
    via = handling.flow.server_conn.via
    if via is not None and data.server.address == via[1]:
        return True  # the user's own upstream proxy, which then connects to the destination
    return handling.plan is not None and _is_at(handling.plan.destination, data)


def _is_at(place: Upstream, data: ServerConnectionHookData) -> bool:
    address = data.server.address
    return address is not None and (place.host, place.port, place.scheme == "https") == (
        address[0],
        address[1],
        data.server.tls,
    )


def web_port() -> int | None:
    """The port of mitmweb's own pages; None in the other tools."""
    return ctx.options.web_port if "web_port" in ctx.options else None
