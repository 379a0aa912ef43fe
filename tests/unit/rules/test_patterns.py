"""Globs and host patterns."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mitm_gateway.rules.patterns import Glob, HostPattern, PathGlob
from support.counted_work import assert_linear
from support.table import table


@table(
    ("glob", "text", "covers"),
    [
        ("claude-*", "Claude-x", False),
        ("a*b", "ab", True),
        ("*", "", True),
        ("a.c", "abc", False),
        ("a*", "a\nb", True),
    ],
)
def test_a_star_covers_any_text_and_the_case_counts(glob: str, text: str, covers: bool) -> None:
    assert Glob(glob).covers(text) is covers


@table(
    ("glob", "path", "covers"),
    [
        ("/v1/**", "/v1/", True),
        ("/v1/**", "/v1/a/b", True),
        ("/v1/**", "/v1", False),
        ("/v1/*", "/v1/a", True),
        ("/v1/*", "/v1/a/b", False),
        ("/**/messages", "/a/b/messages", True),
        ("/**/x*y", "/a/xz/xay", True),
        ("/a*/**/c", "/ab/x/c", True),
        ("/v1/messages", "/v1/messages/", False),
    ],
)
def test_stars_in_a_path_glob_cover_segments(glob: str, path: str, covers: bool) -> None:
    assert PathGlob(glob).covers(path) is covers


def plain(pattern: str, text: str, *, path: bool) -> bool:
    """Return whether a glob matches, in the plainest possible way."""
    if not pattern:
        return not text
    if path and pattern.startswith("**"):
        return any(plain(pattern.lstrip("*"), text[end:], path=path) for end in range(len(text) + 1))
    if pattern[0] == "*":
        ends = range(len(text) + 1)
        return any(
            plain(pattern[1:], text[end:], path=path) for end in ends if not (path and "/" in text[:end])
        )
    return bool(text) and text[0] == pattern[0] and plain(pattern[1:], text[1:], path=path)


PATTERN = st.text("ab/*", max_size=7)
TEXT = st.text("ab/", max_size=8)


@given(PATTERN, TEXT)
def test_globs_agree_with_the_plain_definition(pattern: str, text: str) -> None:
    assert Glob(pattern).covers(text) == plain(pattern, text, path=False)
    assert PathGlob(pattern).covers(text) == plain(pattern, text, path=True)


@given(PATTERN, PATTERN, TEXT)
def test_a_glob_that_contains_another_covers_its_texts(first: str, second: str, text: str) -> None:
    if Glob(first).contains(Glob(second)) and Glob(second).covers(text):
        assert Glob(first).covers(text)
    if PathGlob(first).contains(PathGlob(second)) and PathGlob(second).covers(text):
        assert PathGlob(first).covers(text)


def test_a_glob_that_makes_others_backtrack_takes_linear_work() -> None:
    def match(size: int) -> None:
        assert not Glob("*a" * 29 + "*b*").covers("a" * size)
        assert not PathGlob("/**" + "*a" * 29 + "*b*").covers("/" + "a" * size)

    assert_linear(match, 1024)


@table(
    ("pattern", "host", "covers"),
    [
        ("api.anthropic.com", "api.anthropic.com", True),
        ("API.Anthropic.com.", "api.anthropic.com", True),
        ("ａpi.anthropic.com", "api.anthropic.com", True),
        ("api.anthropic.com", "api.anthropic.com.evil.test", False),
        ("*.anthropic.com", "a.b.anthropic.com", True),
        ("*.anthropic.com", "anthropic.com", False),
        ("*.anthropic.com", "evilanthropic.com", False),
        ("bedrock-runtime.*.amazonaws.com", "bedrock-runtime.eu-central-1.amazonaws.com", True),
        ("bedrock-runtime.*.amazonaws.com", "bedrock-runtime.a.b.amazonaws.com", False),
        ("*-aiplatform.googleapis.com", "us-east5-aiplatform.googleapis.com", True),
        ("*-aiplatform.googleapis.com", "aiplatform.googleapis.com", False),
        ("*-aiplatform.googleapis.com", "a.b-aiplatform.googleapis.com", False),
        ("A*c.test", "abbc.test", True),
        ("*.a*.test", "x.y.ab.test", True),
        ("*", "anything.test", True),
        ("*", "127.0.0.1", True),
        ("127.0.0.1", "127.0.0.1", True),
        ("*.0.0.1", "127.0.0.1", False),
        ("[::1]", "::1", True),
    ],
)
def test_a_host_pattern_covers_any_spelling_of_a_name(pattern: str, host: str, covers: bool) -> None:
    try:
        found = HostPattern.parse(pattern).covers(host, 443)
    except ValueError:
        found = False
    assert found is covers


@table(
    "text",
    [
        "", "a b", "https://a.test", "a.test/x", "a.test\n", "a..b", "-a.test", "a.test:0", "a.test:x", "a@b",
        "[::1",
    ],
)  # fmt: skip
def test_invalid_hosts_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected|has"):
        HostPattern.parse(text)


HOST_PATTERNS = st.sampled_from(
    [
        "a.test", "b.a.test", "*.a.test", "*.test", "*", "*.b.a.test", "a.*.test", "*.*.test", "b.*.test",
        "*b.test", "b*.*.test", "a.test:80",
    ]
)  # fmt: skip
HOSTS = st.sampled_from(["a.test", "b.a.test", "c.b.a.test", "a.b.test", "b.c.test", "x.test", "test"])


@given(HOST_PATTERNS, HOST_PATTERNS, HOSTS, st.sampled_from([80, 443]))
def test_a_host_pattern_that_contains_another_covers_its_hosts(
    first: str, second: str, host: str, port: int
) -> None:
    mine, theirs = HostPattern.parse(first), HostPattern.parse(second)
    if mine.contains(theirs) and theirs.covers(host, port):
        assert mine.covers(host, port)
