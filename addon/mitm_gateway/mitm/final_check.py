"""The end of the addon chain: no other addon may undo what the gateway has decided."""

from collections.abc import Callable

from mitmproxy import http

from ..exchange.exchange import Exchange
from ..exchange.steps import MOVED, NO_TRAILERS, UNDECIDED
from ..wire.refusal import ANY_FAULT
from ..wire.request import as_text
from .connections import Connections
from .flows import place_of, refuse
from .requests import Requests


class FinalCheck:
    """Runs after all other addons: the destination is the rule's, and no body leaves before its edits."""

    name = "gateway-final-check"

    def __init__(self, requests: Requests, connections: Connections) -> None:
        self._requests = requests
        self.next_layer = connections.choose_protocol
        self.server_connect = connections.check_upstream

    def requestheaders(self, flow: http.HTTPFlow) -> None:
        """Hold the body back until the exchange lets the request leave."""
        if not flow.live:
            return
        entry = self._requests.get(flow.id)
        if flow.response or entry is None or not entry.exchange.is_released:
            flow.request.stream = False
        if entry is not None:
            _or_refuse(_check, flow, entry.exchange)

    def request(self, flow: http.HTTPFlow) -> None:
        """Check the request as it will leave, and sign it where its rule says so."""
        entry = self._requests.get(flow.id)
        exchange = entry.exchange if entry else None
        if not flow.live or (exchange is not None and exchange.is_passing):
            return
        if exchange is not None:
            _or_refuse(_check_whole, flow, exchange)
        if not flow.response and (exchange is None or not exchange.is_released):
            refuse(flow, UNDECIDED, exchange)


def _or_refuse(
    check: Callable[[http.HTTPFlow, Exchange], None], flow: http.HTTPFlow, exchange: Exchange
) -> None:
    try:
        check(flow, exchange)
    except ANY_FAULT as fault:
        refuse(flow, fault, exchange)


def _check(flow: http.HTTPFlow, exchange: Exchange) -> None:
    request, plan = flow.request, exchange.plan
    if plan is None or flow.response or not exchange.is_released:
        return
    named = request.authority if request.data.authority else request.headers.get("host", "")
    if not exchange.allows(place_of(request)) or named != plan.destination.authority:
        refuse(flow, MOVED, exchange)


def _check_whole(flow: http.HTTPFlow, exchange: Exchange) -> None:
    request = flow.request
    if request.trailers:
        # A key could be in one. Where another addon made the request stream, the head has left already.
        request.trailers = None
        if not request.stream and not flow.response:
            refuse(flow, NO_TRAILERS, exchange)
    _check(flow, exchange)
    if exchange.signs and not flow.response:
        request.headers.fields = exchange.sign(
            request.method, as_text(request.data.path), request.headers.fields, request.raw_content or b""
        )
    exchange.is_answered = flow.response is not None
