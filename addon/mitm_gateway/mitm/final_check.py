"""The end of the addon chain: what other addons did after the gateway must not undo what it promised."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from mitmproxy import ctx, http
from mitmproxy.proxy.layer import NextLayer
from mitmproxy.proxy.layers import HttpLayer, TCPLayer
from mitmproxy.proxy.layers.http import HTTPMode
from mitmproxy.proxy.server_hooks import ServerConnectionHookData

from ..patches.safety.bounds import NO_TRAILERS
from ..rules.ruleset import RuleSet
from ..wire.addresses import Upstream, is_loopback, normal_host
from ..wire.refusal import Refusal
from .exchange import Exchange
from .handling import Handling
from .listeners import leads_here

logger = logging.getLogger(__name__)

_UNDECIDED = Refusal(502, "internal fault (no decision); nothing was sent")
_MOVED = Refusal(502, "another addon moved the request away from where its rule sends it")


class LastLook:
    """Runs after all other addons: the destination is the rule's, the body is not streamed past its edits."""

    name = "gateway-lastlook"

    def __init__(self, exchange: Exchange, own_ports: Callable[[], frozenset[int]]) -> None:
        self._exchange = exchange
        self._own_ports = own_ports

    def requestheaders(self, flow: http.HTTPFlow) -> None:
        """The head as it will leave, or as the body is waited for."""
        self._or_refuse(flow, self._see_head)

    def request(self, flow: http.HTTPFlow) -> None:
        """The request as it will leave."""
        self._or_refuse(flow, self._see_whole)

    def _or_refuse(self, flow: http.HTTPFlow, look: Callable[[http.HTTPFlow, Handling], None]) -> None:
        handling = self._exchange.get(flow)
        if handling is None or not flow.live:
            return
        try:
            look(flow, handling)
        except (Exception, asyncio.CancelledError) as fault:
            kind = type(fault).__name__
            logger.warning("internal fault while looking at a request: %s", kind)
            self._exchange.refuse(flow, Refusal(502, f"internal fault ({kind}); nothing was sent"))

    def _see_head(self, flow: http.HTTPFlow, handling: Handling) -> None:
        if flow.response or handling.reads_body:
            flow.request.stream = False
        self._check(flow, handling)

    def _see_whole(self, flow: http.HTTPFlow, handling: Handling) -> None:
        if flow.request.trailers:
            # A key could stand in one. Where another addon had the request stream, the head has left already.
            flow.request.trailers = None
            if not flow.request.stream and not flow.response:
                self._exchange.refuse(flow, NO_TRAILERS)
        if handling.plan is None and not flow.response:
            self._exchange.refuse(flow, _UNDECIDED)
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

    def next_layer(self, data: NextLayer) -> None:
        """Has everything read as HTTP where rules decide, so that what is none is refused and not relayed."""
        layer = data.layer
        # Without a flow it is a tunnel that the user wants undecrypted.
        if isinstance(layer, TCPLayer) and layer.flow is not None and self._must_be_http(data):
            data.layer = HttpLayer(data.context, HTTPMode.transparent)

    def _must_be_http(self, data: NextLayer) -> bool:
        loaded, address = self._exchange.loaded, data.context.server.address
        if loaded is None or loaded.ruleset.unmatched == "block":
            return True
        names = [name for name in (address and address[0], data.context.client.sni) if name]
        port = address[1] if address else 443
        return any(knows(loaded.ruleset, name, port) for name in names)

    async def server_connect(self, data: ServerConnectionHookData) -> None:
        """The last moment before a connection is opened. Whatever goes wrong here, none is."""
        try:
            data.server.error = data.server.error or await self._objection(data)
        except Exception as fault:
            data.server.error = f"mitm-gateway: internal fault ({type(fault).__name__})"
        except asyncio.CancelledError:
            data.server.error = "mitm-gateway: cancelled"
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise

    async def _objection(self, data: ServerConnectionHookData) -> str | None:
        address = data.server.address
        if address is None:
            return None
        host, port = address[0], address[1]
        if port in self._own_ports() and await leads_here(host):
            return "mitm-gateway: a request must not come back to this proxy or to mitmweb"
        planned = self._exchange.planned_for(data.client.id)
        if any(_leads_to(each, data) for each in planned):
            return None
        passing = self._exchange.passing_for(data.client.id)
        if planned and not any((flow.request.host, flow.request.port) == (host, port) for flow in passing):
            return "mitm-gateway: the connection is not to where the rule sends the request"
        if self._comes_from_elsewhere(data) and await leads_here(host, nearby=True):
            return "mitm-gateway: other machines do not reach this machine's own services"
        return None

    def _comes_from_elsewhere(self, data: ServerConnectionHookData) -> bool:
        """Whether another machine chose the place: a reverse listener's is the user's own choice."""
        client = data.client
        return client.proxy_mode.type_name != "reverse" and not is_loopback(
            client.peername[0].partition("%")[0]
        )


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


def knows(ruleset: RuleSet, name: str, port: int) -> bool:
    """Whether a rule is about a host, as mitmproxy names it."""
    try:
        return ruleset.knows_host(normal_host(name), port)
    except ValueError:
        return False


def web_port() -> int | None:
    """The port of mitmweb's own pages; None in the other tools."""
    return ctx.options.web_port if "web_port" in ctx.options else None
