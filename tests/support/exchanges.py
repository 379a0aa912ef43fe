"""Exchanges with a few rules, begun and released."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from mitm_gateway.credentials.value import Value
from mitm_gateway.exchange.config import Config
from mitm_gateway.exchange.exchange import Exchange
from mitm_gateway.exchange.masked_head import MaskedHead
from mitm_gateway.exchange.steps import Forward, NeedBody, NeedCredentials, Step
from mitm_gateway.rules.schema import Rule
from mitm_gateway.text.redact import Secret
from mitm_gateway.wire.request import Arrival, RequestHead
from support.constants import API, CK, GW
from support.core import BEARER, make_head, make_rule, make_ruleset

PLAIN = make_rule("plain", upstream="https://gw.test/base", auth=BEARER)
MAPPED = make_rule("mapped", upstream="https://gw.test", auth=BEARER, models={"map": {"claude-x": "gw-x"}})
BY_MODEL = make_rule("by-model", upstream="https://gw.test", auth=BEARER, match={"model": "claude-*"})
VALUES = {"gw": Value(Secret(GW), read_at=0.0)}
KEY = {"x-api-key": CK}
BODY = b'{"model":"claude-x"}'


def begun(*rules: Rule, arrival: Arrival | None = None, unmatched: str = "auto", **config: Any) -> Exchange:
    ruleset = make_ruleset(*rules, unmatched=unmatched, credentials={"gw": {"env": "GW"}})
    clock = iter(range(1000))
    return Exchange(
        Config(ruleset, **config), arrival or Arrival(tls=True, sni=API), lambda: next(clock), lambda: 0.0
    )


def steps_of(
    exchange: Exchange, head: RequestHead, body: bytes = BODY, values: Mapping[str, Value] = VALUES
) -> Iterator[Step]:
    """Run a request: yield its steps, the last of which needs nothing more."""
    step = exchange.on_request_head(head)
    while isinstance(step, NeedCredentials | NeedBody):
        yield step
        is_body = isinstance(step, NeedBody)
        step = exchange.on_request_body(body) if is_body else exchange.on_credentials(values)
    yield step


def sent_by(steps: Iterable[Step], body: bytes) -> tuple[MaskedHead, bytes]:
    """Return the head and the body that leave after these steps, if this body was sent to the gateway."""
    head: MaskedHead | None = None
    for step in steps:
        assert isinstance(step, NeedCredentials | NeedBody | Forward), step
        if not isinstance(step, NeedCredentials) and isinstance(step.head, MaskedHead):
            head = step.head
        if isinstance(step, Forward) and step.body is not None:
            body = step.body
    assert head
    return head, body


def released(exchange: Exchange, head: RequestHead | None = None) -> Exchange:
    """Run a request until it has left."""
    *_, last = steps_of(exchange, head or make_head(headers=KEY))
    assert isinstance(last, Forward)
    exchange.is_released = True
    return exchange
