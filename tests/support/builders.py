"""Rules, request heads, plans and exchanges for tests of the core."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from mitm_gateway.credentials.value import Value
from mitm_gateway.exchange.config import Config
from mitm_gateway.exchange.exchange import Exchange
from mitm_gateway.exchange.headers import Secrets, outgoing_fields
from mitm_gateway.exchange.masked_head import MaskedHead
from mitm_gateway.exchange.plan import Plan, decide
from mitm_gateway.exchange.steps import Forward, NeedBody, NeedCredentials, Step
from mitm_gateway.rules.ruleset import RuleSet
from mitm_gateway.rules.schema import Credential, Rule
from mitm_gateway.text.redact import Secret
from mitm_gateway.wire.request import Arrival, RequestHead, as_bytes
from support.constants import API, CK, GW

BEARER = {"scheme": "bearer", "credential": "gw"}
CLIENT = {"scheme": "bearer", "credential": "client"}  # the key that the client sends


def make_rule(name: str = "r", host: Any = "api.anthropic.com", **keys: Any) -> Rule:
    """A rule from the keys of the file; `match` keys other than host in `match`."""
    match = {"host": host, **keys.pop("match", {})}
    return Rule.model_validate({"name": name, "match": match, **keys})


def make_ruleset(*rules: Rule, unmatched: str = "auto", credentials: Any = None) -> RuleSet:
    """A rule set of these rules."""
    named = {name: Credential.model_validate(source) for name, source in (credentials or {}).items()}
    return RuleSet(rules, named, unmatched)


def make_head(
    target: str = "/v1/messages",
    headers: dict[str, str] | list[tuple[str, str]] | None = None,
    *,
    method: str = "POST",
    host: str = "api.anthropic.com",
    port: int = 443,
    scheme: str = "https",
    authority: str = "",
    add_host: bool = True,
) -> RequestHead:
    """A request head, with a matching Host unless it has an authority or `add_host` is False."""
    pairs = list(headers.items()) if isinstance(headers, dict) else list(headers or [])
    if add_host and not authority and not any(name.lower() == "host" for name, _ in pairs):
        pairs.insert(0, ("Host", host if port in (80, 443) else f"{host}:{port}"))
    fields = tuple((as_bytes(name), as_bytes(value)) for name, value in pairs)
    return RequestHead(method, scheme, host, port, target, fields, authority)


# ---- plans of one rule ----

INTERCEPT = Arrival(mode="regular", tls=True, sni="api.anthropic.com", inside_connect=True)
REVERSE = Arrival(mode="reverse")
CREDENTIALS = {"gw": {"env": "GW"}, "second": {"env": "SECOND"}}


def decided(head: Any = None, arrival: Arrival = INTERCEPT, unmatched: str = "auto", **keys: Any) -> Any:
    """The decision about a request of a rule with these keys."""
    rules = make_ruleset(make_rule(**keys), unmatched=unmatched, credentials=CREDENTIALS)
    return decide(rules, head or make_head(), arrival)


def plan_for(head: Any = None, arrival: Arrival = INTERCEPT, **keys: Any) -> Plan:
    """The plan for a request that the rule takes."""
    plan = decided(head, arrival, **keys)
    assert isinstance(plan, Plan), plan
    return plan


def sent_fields(head: Any, secret: str | None = "GW-SECRET", **keys: Any) -> list[tuple[str, str]]:
    """The fields that leave by that plan."""
    plan = plan_for(head, **keys)
    named = {name: Secret(f"{name}-SECRET") for name in plan.rule.credential_names}
    fields = outgoing_fields(plan, head, Secrets(Secret(secret) if secret else None, named))
    return [(name.decode(), value.decode()) for name, value in fields]


# ---- exchanges with a few rules ----

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
