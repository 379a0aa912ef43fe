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

HOSTS = st.sampled_from(["a.test", "b.a.test", "*.test", "*.a.test", "*", "*.*.test", "a.test:80"])
PATHS = st.sampled_from(["/**", "/v1/**", "/v1/*", "/v1/messages", "/*/messages", "/v1/m*"])
METHODS = st.sampled_from(["GET", "POST"])
GLOBS = st.sampled_from(["*", "claude-*", "claude-opus", "*opus*", "gpt"])


def some(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return values | st.lists(values, min_size=1, max_size=2)


MATCHES = st.fixed_dictionaries(
    {"host": some(HOSTS)},
    optional={
        "path": some(PATHS),
        "method": some(METHODS),
        "model": some(GLOBS),
        "header": st.dictionaries(st.sampled_from(["x-a", "X-B"]), some(GLOBS) | st.booleans(), min_size=1),
    },
).map(Match.model_validate)
REQUESTS = st.fixed_dictionaries(
    {
        "host": st.sampled_from(["a.test", "b.a.test", "c.b.a.test", "x.test", "test"]),
        "port": st.sampled_from([80, 443]),
        "path": st.sampled_from(["/", "/v1/", "/v1/messages", "/v1/m/x", "/v2/messages"]),
        "method": METHODS,
        "model": st.none() | st.sampled_from(["claude-opus", "claude-x", "gpt"]),
        "headers": st.dictionaries(st.sampled_from(["x-a", "x-b"]), st.sampled_from(["gpt", "claude-opus", "z"])),
    }
)  # fmt: skip


def fits(match: Match, request: dict[str, Any]) -> bool:
    """Return whether a match covers a request, in the plainest possible way."""
    if not any(host.covers(request["host"], request["port"]) for host in match.host):
        return False
    if match.path and not any(path.covers(request["path"]) for path in match.path):
        return False
    if match.method and request["method"] not in match.method:
        return False
    if match.model and not any(request["model"] and glob.covers(request["model"]) for glob in match.model):
        return False
    for name, test in (match.header or {}).items():
        value = request["headers"].get(name.lower())
        if isinstance(test, bool):
            if test != (value is not None):
                return False
        elif value is None or not any(glob.covers(value) for glob in test):
            return False
    return True


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
