"""Rules files with one rule, and requests for it to a gateway that has one."""

import json
from pathlib import Path
from textwrap import dedent, indent

from mitmproxy import http, io

from support.constants import API, HEADERS
from support.envoy import Envoy
from support.http_client import Response, Wire
from support.mitmdump import Mitmdump

MAPPING = "models: {map: {claude-x: gw-model}}"
MODELS = "models: {map: {claude-opus-*: gw-large}, default: gw-small}"


def one_rule(
    upstream: str,
    more: str = "",
    *,
    host: str = API,
    match: str = "path: /v1/**",
    auth: str = "{scheme: bearer, credential: gw}",
    top: str = "",
) -> str:
    """Return rules that send a host's requests to an upstream with the gateway's key; `more` are further keys."""
    rule = f'match: {{host: "{host}", {match}}}\nupstream: {upstream}\nauth: {auth}\n{dedent(more).strip()}'
    return f"credentials: {{gw: {{env: GW_KEY}}}}\n{top}\nrules:\n  - name: gw\n{indent(rule, '    ')}\n"


def rules(upstream: str, more: str = "", **keys: str) -> str:
    """Return one rule for this upstream, which has a base path."""
    return one_rule(f"{upstream}/base", more, **keys)


def post(
    proxy: Mitmdump,
    body: bytes = b"{}",
    headers: list[tuple[str, str]] | None = None,
    target: str = "/v1/messages?beta=true",
) -> Response:
    """Send a client's request on a new connection."""
    with Wire(proxy.port) as client:
        return client.request("POST", target, HEADERS if headers is None else headers, body)


def ask(
    proxy: Envoy,
    *headers: tuple[str, str],
    method: str = "POST",
    target: str = "/v1/messages",
    body: bytes = b"{}",
) -> Response:
    """Send a request with only these headers on a new connection."""
    with Wire(proxy.port) as client:
        return client.request(method, target, [("Host", "localhost"), *headers], body)


def error_of(answer: Response) -> str:
    """Return the message of a refusal."""
    text: str = json.loads(answer.body)["error"]["message"]
    assert text.startswith("mitm-gateway: ")
    return text


def recorded_flow(path: Path) -> http.HTTPFlow:
    """Return the only flow of a recording."""
    with path.open("rb") as file:
        flows = [flow for flow in io.FlowReader(file).stream() if isinstance(flow, http.HTTPFlow)]
    assert len(flows) == 1
    return flows[0]
