"""One rule in front of a recorded upstream, a request for it, and the recorded flow."""

from collections.abc import Callable
from pathlib import Path

from mitmproxy import http, io

from support.constants import HEADERS
from support.processes import Mitmdump
from support.recorder import Recorder
from support.rules import one_rule
from support.wire import Response, Wire

StartGateway = Callable[..., tuple[Recorder, Mitmdump]]


def rules(upstream: Recorder, extra: str = "", auth: str = "{scheme: bearer, credential: gw}") -> str:
    """Return a rule for this upstream, which has a base path."""
    return one_rule(f"{upstream.url}/base", extra, auth=auth)


MODELS = "    models: {map: {claude-opus-*: gw-large}, default: gw-small}"


def post(
    proxy: Mitmdump,
    body: bytes = b"{}",
    headers: list[tuple[str, str]] | None = None,
    target: str = "/v1/messages?beta=true",
) -> Response:
    """Send a request on a new connection."""
    with Wire(proxy.port) as client:
        return client.request("POST", target, HEADERS if headers is None else headers, body)


def recorded_flow(path: Path) -> http.HTTPFlow:
    """Return the only flow of a recording."""
    with path.open("rb") as file:
        flows = [flow for flow in io.FlowReader(file).stream() if isinstance(flow, http.HTTPFlow)]
    assert len(flows) == 1
    return flows[0]
