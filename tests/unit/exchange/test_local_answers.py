"""Local answers that a rule allows."""

import json

from mitm_gateway.exchange.local_answers import (
    answer_to_body,
    answer_to_head,
    answer_to_probe,
    estimated_tokens,
)
from mitm_gateway.rules.ruleset import RuleSet
from mitm_gateway.text.turns import finish
from support.builders import make_head, make_rule, make_ruleset
from support.table import table

MODELS = {"map": {"claude-opus-4": "a", "claude-*": "b", "claude-haiku": "c"}}


@table(
    ("host", "target", "expected"),
    [
        ("api.openai.com", "/v1/models", {"object": "list", "data": ["claude-opus-4", "claude-haiku"]}),
        (
            "generativelanguage.googleapis.com",
            "/v1beta/models",
            {"models": ["claude-opus-4", "claude-haiku"]},
        ),
    ],
)
def test_the_models_list_has_the_form_of_the_api(host: str, target: str, expected: dict[str, object]) -> None:
    rule = make_rule(match={"host": host}, models=MODELS, respond={"models": True})
    answer = answer_to_head(rule, make_ruleset(rule), make_head(target, method="GET", host=host))
    assert answer is not None
    listed = json.loads(answer.body)
    key = "models" if "models" in listed else "data"
    listed[key] = [(model.get("id") or model["name"]).removeprefix("models/") for model in listed[key]]
    assert listed == expected


def test_the_models_list_includes_those_of_a_desktop_file() -> None:
    rule = make_rule(respond={"models": True})
    rules = RuleSet((rule,), listed_models=("claude-x",))
    answer = answer_to_head(rule, rules, make_head("/v1/models/claude-x", method="GET"))
    assert answer is not None
    assert json.loads(answer.body)["id"] == "claude-x"


@table(("method", "target"), [("POST", "/v1/models"), ("GET", "/v1/models/other")])
def test_other_requests_are_forwarded(method: str, target: str) -> None:
    rule = make_rule(models=MODELS, respond={"models": True})
    assert answer_to_head(rule, make_ruleset(rule), make_head(target, method=method)) is None


def test_nothing_is_answered_by_default() -> None:
    rule = make_rule(models=MODELS)
    assert answer_to_head(rule, make_ruleset(rule), make_head("/v1/models", method="GET")) is None
    assert finish(answer_to_body(rule, make_head("/v1/messages/count_tokens"), b"{}")) is None
    assert answer_to_probe(make_ruleset(rule), make_head("/", method="HEAD")) is None


def test_a_probe_is_answered_on_any_path_of_the_rules_host() -> None:
    rules = make_ruleset(make_rule(match={"path": "/v1/**"}, respond={"head": True}))
    assert answer_to_probe(rules, make_head("/api/hello", method="HEAD")) is not None
    assert answer_to_probe(rules, make_head("/api/hello", method="GET")) is None
    assert answer_to_probe(rules, make_head("/", method="HEAD", host="other.test")) is None


@table("body", [b"", b"nonsense", b"[]", b'{"messages": 5}', b"[" * 100_000])
def test_an_estimate_never_fails(body: bytes) -> None:
    assert estimated_tokens(body) >= 1


def test_an_image_counts_as_an_image_and_not_as_its_bytes() -> None:
    source = {"type": "base64", "media_type": "image/png", "data": "A" * 1_000_000}
    body = {"messages": [{"role": "user", "content": [{"type": "image", "source": source}]}]}
    assert estimated_tokens(json.dumps(body).encode()) < 2000
