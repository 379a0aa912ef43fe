"""Matching of requests to rules."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from mitm_gateway.rules.ruleset import NEEDS_BODY, Asked, RuleSet
from mitm_gateway.rules.schema import Rule
from support.core import make_head, make_rule, make_ruleset
from support.table import table


def name_of(found: object) -> str | None:
    return found.name if isinstance(found, Rule) else None


def test_first_rule_in_file_order_wins() -> None:
    rules = make_ruleset(make_rule("a", "*.example.com"), make_rule("b", "api.example.com"))
    assert name_of(rules.find(make_head(host="api.example.com"))) == "a"


def test_a_rule_for_another_host_does_not_match() -> None:
    rules = make_ruleset(make_rule("a", "api.example.com"))
    assert rules.find(make_head(host="api.example.com.evil.test")) is None
    assert rules.find(make_head(host="xapi.example.com")) is None


@table(
    ("match", "head", "fits"),
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
def test_all_conditions_must_hold(match: dict[str, Any], head: dict[str, Any], fits: bool) -> None:
    rules = make_ruleset(make_rule("a", match=match))
    assert (name_of(rules.find(make_head(**head))) == "a") is fits


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


def test_an_address_is_matched_as_a_whole() -> None:
    rules = make_ruleset(make_rule("v4", "127.0.0.1"), make_rule("v6", "[::1]"))
    assert rules.knows_host("127.0.0.1", 80)
    assert rules.knows_host("::1", 80)
    assert not rules.knows_host("0.0.1", 80)


HOSTS = st.sampled_from(
    ["a.test", "b.a.test", "c.b.a.test", "a.b.test", "x.y.test", "test", "127.0.0.1", "::1", "a.c.test"]
)
PATTERNS = st.sampled_from(
    [
        "a.test", "*.a.test", "*.test", "*", "a.*.test", "*.*.test", "b.a.test:443", "*:8443", "127.0.0.1",
        "[::1]",
    ]
)  # fmt: skip
PATHS = st.sampled_from(["/v1/messages", "/v1/", "/v1", "/x/y", "/", "/v1/../x"])
PATH_PATTERNS = st.sampled_from([None, "/v1/**", "/v1/*", "/**", "/x/*", "*"])
MODELS = st.sampled_from([None, "opus-1", "haiku"])
MODEL_PATTERNS = st.sampled_from([None, "opus-*", "haiku", "*"])


@st.composite
def rules_strategy(draw: st.DrawFn) -> list[Rule]:
    rules = []
    for number in range(draw(st.integers(1, 8))):
        match: dict[str, Any] = {}
        if path := draw(PATH_PATTERNS):
            match["path"] = path
        if model := draw(MODEL_PATTERNS):
            match["model"] = model
        rules.append(make_rule(f"r{number}", draw(st.lists(PATTERNS, min_size=1, max_size=2)), match=match))
    return rules


def plain_loop(
    rules: list[Rule], host: str, port: int, path: str, odd: bool, asked: str | None
) -> Rule | None:
    for rule in rules:
        match = rule.match
        if not any(pattern.covers(host, port) for pattern in match.host):
            continue
        if match.path and (odd or not any(pattern.covers(path) for pattern in match.path)):
            continue
        if match.model and (asked is None or not any(glob.covers(asked) for glob in match.model)):
            continue
        return rule
    return None


@given(rules_strategy(), HOSTS, st.sampled_from([443, 8443]), PATHS, MODELS)
def test_the_index_agrees_with_a_plain_loop(
    rules: list[Rule], host: str, port: int, path: str, asked: str | None
) -> None:
    head = make_head(path, host=host, port=port)
    found = RuleSet(tuple(rules)).find(head, Asked(asked))
    expected = plain_loop(rules, host, port, path, head.has_odd_path, asked)
    assert name_of(found) == (expected.name if expected else None)
