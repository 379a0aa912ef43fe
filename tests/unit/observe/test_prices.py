"""Prices of models and the cost of requests; mistakes in a file of prices."""

from pathlib import Path
from typing import Any

import pytest

from mitm_gateway.observe.prices import Prices, built_in
from mitm_gateway.observe.prices.price_list import parse_price_list, read_price_list
from mitm_gateway.rules.problems import RulesError
from support.table import table

ENTRY = {"host": "api.anthropic.com", "method": "POST", "path": "/v1/messages", "model": "claude-opus-4-8"}
PRICES = Prices()


def test_every_list_has_a_date_and_sources() -> None:
    assert built_in()
    assert all(each.date and each.sources and each.models for each in built_in())


@table(
    ("counts", "cost"),
    [
        ({"input_tokens": 1_000_000}, 5.0),
        ({"input_tokens": 0, "output_tokens": 1_000_000}, 25.0),
        ({"input_tokens": 0, "cache_read_tokens": 1_000_000}, 0.5),
        ({"input_tokens": 0, "cache_creation_tokens": 1_000_000}, 6.25),
        (
            {"input_tokens": 0, "cache_creation_tokens": 1_000_000, "cache_creation_long_tokens": 1_000_000},
            10.0,
        ),
        (
            {"input_tokens": 0, "cache_creation_tokens": 1_000_000, "cache_creation_long_tokens": 400_000},
            7.75,
        ),
    ],
)
def test_each_kind_of_token_has_its_price(counts: dict[str, int], cost: float) -> None:
    assert PRICES.cost({**ENTRY, **counts}) == pytest.approx(cost)


def test_an_api_that_counts_cached_tokens_as_input_is_not_charged_twice() -> None:
    entry = {"host": "api.openai.com", "method": "POST", "path": "/v1/responses", "model": "gpt-5.4"}
    counts = {"input_tokens": 1_000, "cache_read_tokens": 900, "output_tokens": 100}
    assert PRICES.cost({**entry, **counts}) == pytest.approx((100 * 2.5 + 900 * 0.25 + 100 * 15) / 1e6)


@table("free", [{"upstream": "demo"}, {"replayed": True}])
def test_an_answer_of_the_demo_or_of_a_recording_has_no_cost(free: dict[str, object]) -> None:
    assert PRICES.cost({**ENTRY, "input_tokens": 1_000_000, **free}) is None


def test_a_long_prompt_has_its_own_prices() -> None:
    entry = {**ENTRY, "model": "claude-haiku-5-5"}
    assert PRICES.cost({**entry, "input_tokens": 100_000}) == pytest.approx(0.01)
    assert PRICES.cost({**entry, "input_tokens": 1, "cache_read_tokens": 100_000}) == pytest.approx(
        (0.5 + 100_000 * 0.05) / 1e6
    )


@table(
    "others",
    [
        {"model": "claude-opus-4-8-turbo"},
        {"model": "my-claude-opus-4-8"},
        {"model": "Claude-Opus-4-8"},
        {"model_sent": "claude-opus-4.8"},
        {"upstream": "https://api.githubcopilot.com"},
        {"upstream": "https://europe-west1-aiplatform.googleapis.com:443"},
        {"service_tier": "priority"},
        {"outcome": "client_left"},
        {"model": "glm-5"},
        {"model": None},
    ],
)
def test_an_unknown_price_is_no_price(others: dict[str, Any]) -> None:
    assert PRICES.cost({**ENTRY, "input_tokens": 1, **others}) is None


def test_a_suffix_for_a_long_context_and_the_sent_name_are_understood() -> None:
    assert PRICES.cost({**ENTRY, "model": "x", "model_sent": "claude-opus-4-8[1m]", "input_tokens": 1})
    at_vendor = {**ENTRY, "model": "glm-5", "upstream": "https://api.z.ai/api/anthropic", "input_tokens": 1}
    assert PRICES.cost(at_vendor) == pytest.approx(1e-6)


def test_a_file_of_the_user_has_precedence(tmp_path: Path) -> None:
    file = tmp_path / "prices.yaml"
    file.write_text("models:\n  claude-opus-4-8: {input: 1, output: 2}\n  own: {input: 3, output: 4}\n")
    prices = Prices.of_file(file)
    counts = {"input_tokens": 100, "cache_read_tokens": 10, "cache_creation_tokens": 10, "output_tokens": 5}
    assert prices.cost({**ENTRY, **counts}) == pytest.approx((120 * 1 + 5 * 2) / 1e6)
    assert prices.cost({**ENTRY, **counts, "cache_creation_long_tokens": 1}) is None
    assert prices.cost({**ENTRY, "model": "own", "input_tokens": 1}) == pytest.approx(3e-6)
    assert prices.cost({**ENTRY, "model": "claude-opus-5", "input_tokens": 1}) == pytest.approx(5e-6)


@table(
    ("text", "problem"),
    [
        ("", 'p:1:1: the file is empty; expected a mapping with "models"'),
        ("[]", 'p:1:1: the file is a list; expected a mapping with "models"'),
        ("date: a", 'p:1:1: the file has no "models"; expected a mapping with "models"'),
        ("models: 1", 'p:1:9: "models" is 1; expected a mapping of model names, as in NAME: {input: 5, output: 25}'),
        ("models:\n  m: 3", 'p:2:6: "m" is 3; expected prices, as in {input: 5, output: 25}'),
        ("models:\n  m: {input: 3}", 'p:2:3: "m" has no "output"; expected prices, as in {input: 5, output: 25}'),
        ("models:\n  m: {input: -1, output: 1}", 'p:2:14: "input" is -1; expected US dollars per million tokens'),
        ("models:\n  m: {input: 1, output: '1'}", 'p:2:25: "output" is text; expected US dollars per million'),
        ("models:\n  m: {input: 1, outputs: 1}", 'p:2:17: unknown key "outputs" (did you mean "output"?)'),
        ("models: {m: {input: 1, output: 1, long: {above: 0, input: 1, output: 1}}}",
         'p:1:49: "above" is 0; expected a number of tokens'),
        ("models: {}\nhosts: a", 'p:2:8: "hosts" is text; expected a list of texts'),
        ("models: {m: [", "p:2:1: a value is missing, or a bracket is not closed"),
    ],
)  # fmt: skip
def test_a_mistake_has_a_place_and_an_expectation(text: str, problem: str) -> None:
    with pytest.raises(RulesError) as caught:
        parse_price_list(text.encode(), "p")
    assert str(caught.value).startswith(problem)
    assert len(caught.value.problems) == 1


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(RulesError, match="the file does not exist"):
        read_price_list(tmp_path / "none.yaml")
