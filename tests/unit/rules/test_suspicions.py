"""Valid rules that look like a mistake are warned about, with their position."""

from __future__ import annotations

import pytest

from mitm_gateway.rules.load import parse_rules
from mitm_gateway.rules.suspicions import suspicions


def warnings(match: str, more: str = "") -> list[str]:
    text = f"rules:\n  - name: a\n    match: {{{match}}}\n    upstream: https://gw.test\n{more}"
    return [str(problem) for problem in suspicions(parse_rules(text.encode(), "f", {}))]


@pytest.mark.parametrize("host", ["127.0.0.1:8080", "localhost", "'[::1]:8080'", "LOCALHOST"])
def test_a_host_that_is_the_listener(host: str) -> None:
    (warning,) = warnings(f"host: {host}")
    assert warning.startswith('f:3:19: rule "a" matches this machine; expected the host that clients mean')


@pytest.mark.parametrize("path", ["/v1", "/v1/", "/", "/v1beta"])
def test_a_path_without_what_is_below_it(path: str) -> None:
    (warning,) = warnings(f"host: a.test, path: {path}")
    assert f'"{path.rstrip("/")}/**" covers everything below' in warning


def test_a_variable_without_braces() -> None:
    (warning,) = warnings("host: a.test", "    headers: {set: {x-team: Team $TEAM_NAME}}\n")
    assert 'expected "${NAME}"' in warning


@pytest.mark.parametrize(
    ("upstream", "base"),
    [("https://gw.test/v1/messages", "https://gw.test"), ("https://gw.test/x/responses", "https://gw.test/x"),
     ("http://127.0.0.1:4000/v1/chat/completions", "http://127.0.0.1:4000")],
)  # fmt: skip
def test_an_upstream_that_is_an_endpoint(upstream: str, base: str) -> None:
    text = f"rules:\n  - name: a\n    match: {{host: a.test}}\n    upstream: {upstream}\n"
    (warning,) = map(str, suspicions(parse_rules(text.encode(), "f", {})))
    assert warning.startswith("f:4:15: ")
    assert warning.endswith(f'expected the base URL "{base}"')


def test_usual_rules_are_not_warned_about() -> None:
    more = "    headers: {set: {x-price: $5 US$ABC, x-b: a$$}}\n"
    assert not warnings("host: [a.test, '*'], path: [/v1/**, /v1/messages, /**]", more)
