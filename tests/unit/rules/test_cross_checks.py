"""Faults between the parts of a rules file."""

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mitm_gateway.rules import cross_checks
from mitm_gateway.rules.cross_checks import check_rules, takes_all
from mitm_gateway.rules.problems import Pos
from mitm_gateway.rules.schema import Match, Rule
from support.matches import MATCHES, REQUESTS, fits


@given(MATCHES, MATCHES, REQUESTS)
def test_a_match_that_takes_all_of_another_takes_each_of_its_requests(
    first: Match, second: Match, request: dict[str, Any]
) -> None:
    if takes_all(first, second) and fits(second, request):
        assert fits(first, request)


@given(st.lists(MATCHES, max_size=5))
def test_the_index_agrees_with_a_plain_loop(matches: list[Match]) -> None:
    rules = {number: Rule(name=str(number), match=match) for number, match in enumerate(matches)}
    findings = check_rules(rules, {}, lambda loc: Pos(1, 1))
    found = {finding.loc[1] for finding in findings if "never match" in finding.text}
    plain = {
        number
        for number, match in enumerate(matches)
        if any(takes_all(earlier, match) for earlier in matches[:number])
    }
    assert found == plain


@pytest.mark.parametrize("part", ["method", "header", "model"])
def test_the_number_of_compared_rules_is_bounded(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    compared = itertools.count()
    monkeypatch.setattr(cross_checks, "takes_all", lambda first, second: next(compared) < 0)
    values: list[Any] = [{"x-a": f"v{n}"} if part == "header" else f"v{n}" for n in range(4000)]
    matches = [Match.model_validate({"host": "a.test", "path": "/v1/**", part: value}) for value in values]
    rules = {number: Rule(name=str(number), match=match) for number, match in enumerate(matches)}
    assert list(check_rules(rules, {}, lambda loc: Pos(1, 1))) == []
    assert next(compared) < 110_000  # of eight million pairs
