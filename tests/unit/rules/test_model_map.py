"""Model names: exact names, globs with captures, targets that stay, `[1m]` and the default."""

from hypothesis import given
from hypothesis import strategies as st

from mitm_gateway.rules.model_map import ModelMap, NameTemplate, base_name
from mitm_gateway.rules.patterns import Glob
from mitm_gateway.rules.schema import Match
from support.table import table


@table(
    ("text", "expected"),
    [
        ("claude-opus-4-8", "claude-opus-4-8"), ("claude[1m]", "claude"), ("claude[1M]", "claude"),
        ("claude[1m][1M]", "claude"), ("[1m]claude", "[1m]claude"), ("claude[1m", "claude[1m"), ("[1m]", ""),
        ("", ""), ("1m]", "1m]"), ("m]", "m]"),
    ],
)  # fmt: skip
def test_the_notation_for_the_long_context_is_removed(text: str, expected: str) -> None:
    assert base_name(text) == expected


CAPTURES = {"claude-*-4-*": "anthropic/claude-{1}-4.{2}"}


@table(
    ("names", "default", "asked", "sent"),
    [
        # exact, then file order, then the default
        ({"claude-*": "glob", "claude-a": "exact"}, None, "claude-a", "exact"),
        ({"claude-o*": "first", "claude-*": "second"}, None, "claude-opus", "first"),
        ({"claude-*": "glob"}, "default", "gpt", "default"),
        ({"claude-*": "glob"}, None, "gpt", "gpt"),
        # without [1m] if nothing covers the name with it
        ({"claude-opus-4-8": "exact"}, "default", "claude-opus-4-8[1m]", "exact"),
        ({"claude-opus-4-8": "exact"}, "default", "claude-opus-4-8[1M][1m]", "exact"),
        ({"claude-*-8": "glob"}, "default", "claude-opus-4-8[1m]", "glob"),
        ({"claude-opus-4-8[1m]": "long", "claude-opus-4-8": "short"}, None, "claude-opus-4-8[1m]", "long"),
        ({"claude-*": "glob", "claude-a": "exact"}, None, "claude-a[1m]", "glob"),
        ({"claude-a": "exact"}, "default", "gpt[1m]", "default"),
        # a target stays
        ({"claude-haiku-*": "up-small"}, "up-large", "up-small", "up-small"),
        ({"claude-haiku-*": "up-small"}, "up-large", "up-small[1m]", "up-small"),
        ({"claude-*": "claude-small", "opus": "claude-big"}, None, "claude-big", "claude-big"),
        ({"a": "b", "b": "a"}, None, "a", "b"),
        ({"a": "b", "b": "a"}, None, "b", "a"),
        # captures
        (CAPTURES, None, "claude-opus-4-8", "anthropic/claude-opus-4.8"),
        (CAPTURES, "d", "anthropic/claude-opus-4.8", "anthropic/claude-opus-4.8"),
        ({"claude-*-4-*": "claude-{1}-4.{2}"}, "d", "claude-opus-4-8[1m]", "claude-opus-4.8"),
        ({"claude-*": "x/{1}.5"}, "d", "x/opus.5[1m]", "x/opus.5"),
        ({"claude-*-4-*": "x/{1}-4.{2}"}, None, "x/opus-4.8[1M][1m]", "x/opus-4.8"),
        ({"claude-*": "x/{1}[1m]"}, "d", "x/opus[1m]", "x/opus[1m]"),
        ({"*-*-*": "{3}{1}{2}{1}"}, None, "a-b-c-d", "c-daba"),
        ({"openai/*": "{1}"}, "default", "openai/gpt", "gpt"),
        ({"openai/*": "{1}"}, "default", "gpt", "gpt"),
        ({"a**": "{1}{x}{}"}, None, "ab", "b{x}{}"),
        ({"*": "x-{1}"}, None, "{1}", "x-{1}"),
    ],
)
def test_names_are_mapped(names: dict[str, str], default: str | None, asked: str, sent: str) -> None:
    assert ModelMap(names, default).sent_for(asked) == sent


@given(st.lists(st.text("ab-", max_size=3), min_size=1, max_size=4), st.text("ab-*", max_size=6))
def test_captured_texts_rebuild_the_name(parts: list[str], pattern: str) -> None:
    name = "-".join(parts)
    captured = Glob(pattern).captures(name)
    assert (captured is not None) == Glob(pattern).covers(name)
    if captured is not None:
        pieces = [piece for piece in pattern.replace("*", "\0*\0").split("\0") if piece]
        stars = iter(captured)
        merged = [piece for at, piece in enumerate(pieces) if piece != "*" or pieces[at - 1 : at] != ["*"]]
        assert "".join(next(stars) if piece == "*" else piece for piece in merged) == name


NAMES = st.sampled_from(["a", "ab", "a-1", "b-2-3", "x/a"]) | st.text("ab-1", min_size=1, max_size=5)
ENTRIES = st.sampled_from(
    [("a", "x"), ("a-*", "x/a-{1}"), ("*-*-*", "{1}.{2}.{3}"), ("b*", "a"), ("ab", "b")]
)


@given(st.lists(ENTRIES, max_size=4).map(dict), st.sampled_from([None, "d"]), NAMES)
def test_a_covered_name_never_gets_the_default(names: dict[str, str], default: str | None, name: str) -> None:
    sent = ModelMap(names, default).sent_for(name)
    if any(Glob(pattern).covers(name) for pattern in names):
        assert sent == ModelMap(names).sent_for(name)
    elif name not in names.values():
        assert sent in (name, default)


@table(
    ("pattern", "name", "covers"),
    [
        ("claude-opus-4-8", "claude-opus-4-8[1m]", True),
        ("claude-*-8", "claude-opus-4-8[1M][1m]", True),
        ("*[1m]", "claude-opus-4-8[1m]", True),
        ("*[1m]", "claude-opus-4-8", False),
        ("claude-opus-4-8", "claude-opus-4-8[2m]", False),
        ("*", None, False),
    ],
)
def test_a_condition_on_the_model_ignores_the_long_context(
    pattern: str, name: str | None, covers: bool
) -> None:
    match = Match.model_validate({"host": "a.test", "model": pattern})
    assert match.covers_model(name) is covers
    assert Match.model_validate({"host": "a.test"}).covers_model(name)


@table(
    ("names", "default", "sent", "asked"),
    [
        ({"a": "up-a"}, None, "up-a", "a"),
        ({"a": "up-a"}, "up-large", "up-a", "a"),
        ({"a": "up-a"}, "up-a", "up-a", None),
        ({"a": "up-a", "b": "up-a"}, None, "up-a", None),
        ({"a": "up-a"}, None, "other", None),
        ({"claude-*": "up-small"}, None, "up-small", None),
        ({"a": "up", "claude-*": "up"}, None, "up", None),
        ({"claude-*": "vendor/claude-{1}"}, None, "vendor/claude-x", "claude-x"),
        ({"claude-*": "vendor/claude-{1}"}, None, "claude-x", None),
        (CAPTURES, "d", "anthropic/claude-opus-4.8", "claude-opus-4-8"),
        # several places for the text between the captures
        ({"claude-*-4-*": "claude-{1}-4.{2}"}, None, "claude-a-4.b-4.c", None),
        ({"*-*": "{1}{2}"}, None, "ab", None),
        ({"*-*": "x-{2}"}, None, "x-b", None),
        ({"*-*": "{2}/{1}/{2}"}, None, "b/a/b", "a-b"),
        ({"*-*": "{2}/{1}/{2}"}, None, "b/a/c", None),
        # another entry decides on the name
        ({"vendor/*": "{1}", "vendor/a": "b"}, None, "a", None),
        ({"vendor/*": "{1}", "vendor/a": "b"}, None, "c", "vendor/c"),
        ({"a": "up", "vendor/*": "{1}"}, None, "up", None),
        ({}, "d", "d", None),
    ],
)
def test_the_name_that_was_asked_for_is_known_where_there_is_one(
    names: dict[str, str], default: str | None, sent: str, asked: str | None
) -> None:
    assert ModelMap(names, default).asked_for(sent) == asked


PARTS = st.sampled_from(["a", "b", "-", "*", "{1}", "{2}"])


@given(st.lists(PARTS, min_size=1, max_size=5).map("".join), st.lists(PARTS, min_size=1, max_size=5).map("".join),
       st.lists(st.text("ab-", max_size=5), min_size=2, max_size=30))  # fmt: skip
def test_no_other_name_is_sent_as_one_with_a_known_name(pattern: str, target: str, asked: list[str]) -> None:
    pattern, target = pattern.replace("{", "").replace("}", ""), target.replace("*", "")
    if any(number > len(Glob(pattern).literals) - 1 for number in NameTemplate(target).captures):
        return
    names = ModelMap({pattern: target})
    for name in asked:
        sent = names.sent_for(name)
        known = names.asked_for(sent)
        # A name in the form of a target stays, and is not considered.
        assert known in (None, name) or sent == name
