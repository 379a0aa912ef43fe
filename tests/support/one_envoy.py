"""One rule in front of a recorded upstream, and a request for it through Envoy."""

import json
from collections.abc import Callable

from support.constants import API
from support.envoy import Envoy
from support.recorder import Recorder
from support.rules import one_rule
from support.wire import Response, Wire

StartOne = Callable[..., tuple[Recorder, Envoy]]


def rules(upstream: str, more: str = "", top: str = "", host: str = API) -> str:
    """Return a rule for this upstream, which has a base path."""
    return one_rule(f"{upstream}/base", more, top=top, host=host)


def ask(
    proxy: Envoy,
    *headers: tuple[str, str],
    method: str = "POST",
    target: str = "/v1/messages",
    body: bytes = b"{}",
) -> Response:
    """Send a request on a new connection."""
    with Wire(proxy.port) as client:
        return client.request(method, target, [("Host", "localhost"), *headers], body)


def error_of(answer: Response) -> str:
    """Return the message of a refusal."""
    text: str = json.loads(answer.body)["error"]["message"]
    assert text.startswith("mitm-gateway: ")
    return text
