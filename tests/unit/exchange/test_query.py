"""Query edits: parameters that a rule sets or removes; everything else stays byte for byte."""

from typing import Any
from urllib.parse import parse_qsl

from hypothesis import given
from hypothesis import strategies as st

from mitm_gateway.credentials.value import Value
from mitm_gateway.exchange.config import Config
from mitm_gateway.exchange.exchange import Exchange
from mitm_gateway.exchange.explain import explain_url
from mitm_gateway.exchange.query import edited_target
from mitm_gateway.exchange.steps import Forward, NeedCredentials
from mitm_gateway.rules.edits import QueryEdits
from mitm_gateway.rules.load import parse_rules
from mitm_gateway.text.redact import Secret
from mitm_gateway.wire.request import Arrival
from support.builders import make_head
from support.table import table

RULES = b"""
credentials: {gw: {env: GW}}
rules:
  - name: gemini
    match: {host: api.anthropic.com}
    upstream: https://gateway.example.com
    auth: {scheme: none}
    query: {set: {key: "${credential:gw}", api-version: "2026-11-01"}, remove: [trace*]}
"""


@table(
    ("target", "query", "expected"),
    [
        ("/a?b=1&&c", {}, "/a?b=1&&c"),
        ("/a", {"set": {"v": "1"}}, "/a?v=1"),
        ("/a?", {"set": {"v": "1"}}, "/a?v=1"),
        ("/a?b=%7e&v=0&&c", {"set": {"v": "1"}}, "/a?b=%7e&v=1&&c"),
        ("/a?v=0&b&%76=2&v", {"set": {"v": "1"}}, "/a?v=1&b"),
        ("/a?V=0", {"set": {"v": "1"}}, "/a?V=0&v=1"),
        ("/a?b=%7e&trace=1&tr%61ce-id=2&c=?", {"remove": ["trace*"]}, "/a?b=%7e&c=?"),
        ("/a?trace=1", {"remove": ["trace"]}, "/a"),
        ("/a?a+b=1", {"remove": ["a b"]}, "/a"),
        ("/a?v=0", {"set": {"v": "1"}, "remove": ["*"]}, "/a?v=1"),
        ("/a", {"set": {"a&b": "x y&z=é#%+"}}, "/a?a%26b=x%20y%26z%3D%C3%A9%23%25%2B"),
    ],
)
def test_parameters_are_set_and_removed(target: str, query: dict[str, Any], expected: str) -> None:
    assert edited_target(target, QueryEdits.model_validate(query), {}) == expected


@given(
    st.text("ab=&%;?+", max_size=12), st.dictionaries(st.sampled_from("abv"), st.text("x&=%+ é", max_size=4))
)
def test_every_set_parameter_arrives_once(given_query: str, values: dict[str, str]) -> None:
    target = edited_target("/p?" + given_query, QueryEdits.model_validate({"set": values}), {})
    sent = parse_qsl(target.partition("?")[2], keep_blank_values=True)
    for name, value in values.items():
        assert [each for key, each in sent if key == name] == [value]


def test_a_secret_joins_the_target_last_and_is_known_for_masking() -> None:
    ruleset = parse_rules(RULES, "rules.yaml", {})
    exchange = Exchange(Config(ruleset), Arrival(sni="api.anthropic.com", tls=True))
    step = exchange.on_request_head(make_head("/v1/models?key=mine&trace=1&b=2"))
    assert step == NeedCredentials(("gw",))
    step = exchange.on_credentials({"gw": Value(Secret("S+CRET/0123456789012"))})
    assert isinstance(step, Forward)
    assert step.head is not None
    assert {"S+CRET/0123456789012", "S%2BCRET/0123456789012"} <= set(exchange.all_keys)
    assert exchange.plan is not None
    assert "CRET" not in repr(exchange.plan)


def test_an_explanation_lists_query_edits_without_a_secret() -> None:
    ruleset = parse_rules(RULES, "rules.yaml", {})
    explanation = explain_url(ruleset, "GET", "https://api.anthropic.com/v1/models?key=mine&trace=1")
    assert explanation.query == ("remove trace*", "set key", "set api-version")
    assert explanation.destination is not None
    assert explanation.destination.endswith("&api-version=2026-11-01")
    assert "mine" not in "\n".join(explanation.lines())
