"""Plans and outgoing heads of one rule."""

from typing import Any

from mitm_gateway.exchange.headers import Secrets, outgoing_fields
from mitm_gateway.exchange.plan import Plan, decide
from mitm_gateway.text.redact import Secret
from mitm_gateway.wire.request import Arrival
from support.core import make_head, make_rule, make_ruleset

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
