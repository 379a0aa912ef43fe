"""Matching of requests to rules."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from mitm_gateway.rules.ruleset import NEEDS_BODY, Asked, RuleSet
from mitm_gateway.rules.schema import Match, Rule
from support.builders import make_head, make_rule, make_ruleset
from support.matches import MATCHES, REQUESTS, fits
from support.table import table


def name_of(found: object) -> str | None:
    return found.name if isinstance(found, Rule) else None


@table(
    ("match", "head", "is_taken"),
    [
        ({"path": "/v1/**"}, {"target": "/v1/messages?beta=true"}, True),
        ({"path": "/v1/**"}, {"target": "/v1/"}, True),
        ({"path": "/v1/**"}, {"target": "/v1"}, False),
        ({"path": "/v1/**"}, {"target": "/%761/messages"}, True),
        ({"path": "/m%3Agen/%7Eme/a%2F*"}, {"target": "/m:gen/%7eme/a%2Fx"}, True),
        ({"path": "/ü*"}, {"target": "/%C3%BCx"}, True),
        ({"path": "/v1/*"}, {"target": "/v1/a/b"}, False),
        ({"path": "/v1/**"}, {"target": "/v1/../admin"}, False),
        ({"path": "/v1/**"}, {"target": "/x?/v1/a"}, False),
        ({"method": "post"}, {"method": "POST"}, True),
        ({"method": ["GET", "PUT"]}, {"method": "POST"}, False),
        ({"header": {"X-App": "cli"}}, {"headers": {"x-app": "cli"}}, True),
        ({"header": {"X-App": "cli*"}}, {"headers": {"x-app": "xcli"}}, False),
        ({"header": {"x-app": ["a", "b"]}}, {"headers": {"x-app": "b"}}, True),
        ({"header": {"x-app": True}}, {"headers": {"x-app": ""}}, True),
        ({"header": {"x-app": True}}, {}, False),
        ({"header": {"x-app": False}}, {}, True),
        ({"header": {"x-app": False}}, {"headers": {"x-app": "a"}}, False),
        ({"header": {"x-app": "b*"}}, {"headers": [("x-app", "a"), ("X-App", "b1")]}, True),
        ({"header": {"x-app": "a, b"}}, {"headers": [("x-app", "a"), ("x-app", "b")]}, False),
    ],
)
def test_all_conditions_must_hold(match: dict[str, Any], head: dict[str, Any], is_taken: bool) -> None:
    rules = make_ruleset(make_rule("a", match=match))
    assert (name_of(rules.find(make_head(**head))) == "a") is is_taken


def test_a_model_condition_waits_for_the_body() -> None:
    rules = make_ruleset(make_rule("opus", match={"model": "claude-opus-*"}), make_rule("rest"))
    head = make_head()
    assert rules.find(head) is NEEDS_BODY
    assert name_of(rules.find(head, Asked("claude-opus-4"))) == "opus"
    assert name_of(rules.find(head, Asked("claude-haiku"))) == "rest"
    assert name_of(rules.find(head, Asked(None))) == "rest"


def test_a_rule_before_the_model_condition_does_not_wait() -> None:
    rules = make_ruleset(make_rule("first"), make_rule("opus", match={"model": "claude-opus-*"}))
    assert name_of(rules.find(make_head())) == "first"


def test_a_port_in_the_pattern_must_agree() -> None:
    rules = make_ruleset(make_rule("p", "api.example.com:8443"))
    assert rules.knows_host("api.example.com", 8443)
    assert not rules.knows_host("api.example.com", 443)


@given(st.lists(MATCHES, max_size=6), REQUESTS)
def test_the_first_rule_whose_match_fits_takes_a_request(
    matches: list[Match], request: dict[str, Any]
) -> None:
    rules = tuple(Rule(name=str(number), match=match) for number, match in enumerate(matches))
    head = make_head(
        request["path"],
        request["headers"],
        method=request["method"],
        host=request["host"],
        port=request["port"],
    )
    expected = next((rule for rule in rules if fits(rule.match, request)), None)
    assert RuleSet(rules).find(head, Asked(request["model"])) is expected
