"""Exchanges with a few rules, begun and released."""

from collections.abc import Mapping
from typing import Any

from mitm_gateway.credentials.value import Value
from mitm_gateway.exchange.config import Config
from mitm_gateway.exchange.exchange import Exchange
from mitm_gateway.exchange.steps import Forward, NeedBody, NeedCredentials
from mitm_gateway.rules.schema import Rule
from mitm_gateway.text.redact import Secret
from mitm_gateway.wire.request import Arrival
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


def released(exchange: Exchange, headers: Mapping[str, str] = KEY) -> Exchange:
    """Run a request until it has left."""
    step = exchange.on_request_head(make_head(headers=dict(headers)))
    while isinstance(step, NeedCredentials | NeedBody):
        step = (
            exchange.on_credentials(VALUES)
            if isinstance(step, NeedCredentials)
            else exchange.on_request_body(BODY)
        )
    assert isinstance(step, Forward)
    exchange.release()
    return exchange
