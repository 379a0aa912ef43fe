"""Hooks of the addon, called by a test with its own flows."""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from mitmproxy import http
from mitmproxy.test import tflow

from mitm_gateway.mitm.addon import GatewayAddon
from support.one_rule import one_rule

RULES = one_rule("https://gw.test/base", "models: {map: {claude-opus-4: gw-large}}")


def request_flow(
    url: str = "https://api.anthropic.com/v1/messages",
    content: bytes = b'{"model":"claude-opus-4"}',
    headers: Mapping[str, str] | None = None,
    method: str = "POST",
) -> http.HTTPFlow:
    """A flow of a request to the rule of `RULES`, unless its URL is another."""
    flow = tflow.tflow()
    flow.request = http.Request.make(method, url, content)
    fields = {"Host": "api.anthropic.com", "x-api-key": "CLIENT-KEY", "Content-Length": "25"}
    flow.request.headers.update({**fields, **(headers or {})})
    flow.client_conn.sni = "api.anthropic.com"
    flow.client_conn.tls = True
    return flow


async def sent(addon: GatewayAddon, flow: http.HTTPFlow) -> http.Request:
    for hook in (addon.requestheaders, addon.request):
        if waiting := hook(flow):
            await waiting
    return flow.request


def record_ended(context: Any) -> None:
    """Record the flows that have ended, as a request for the totals does."""
    context.master.commands.call("gateway.stats")


def show_flows(context: Any) -> None:
    """Add an addon that sees flows, so that their records are shown in them."""
    context.master.addons.add(SimpleNamespace(name="sees flows", update=lambda flows: None))


def answered(addon: GatewayAddon, flow: http.HTTPFlow, body: bytes) -> http.Response:
    """Let the upstream answer with JSON, which streams through the addon, and return the response that is kept."""
    flow.response = response = http.Response.make(200, b"", {"content-type": "application/json"})
    addon.responseheaders(flow)
    assert callable(response.stream)
    response.stream(body)
    response.stream(b"")
    response.raw_content = None
    addon.response(flow)
    return response
