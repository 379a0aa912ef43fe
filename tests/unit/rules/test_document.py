"""YAML becomes plain data with positions, or problems with positions."""

import itertools
import json
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mitm_gateway.rules import yaml_events
from mitm_gateway.rules.document import parse, read_document
from mitm_gateway.rules.nodes import shown
from mitm_gateway.rules.problems import Pos, RulesError
from support.counted_work import assert_linear
from support.table import table

EXAMPLE = "`mitm-gateway init PRESET` writes an example"
INDENTATION = "wrong indentation, or text that needs quotes; expected the keys of a mapping in one column"


@pytest.fixture(params=["libyaml", "python"])
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both parsers that PyYAML may have."""
    name: str = request.param
    chosen = yaml.SafeLoader if name == "python" else getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    monkeypatch.setattr(yaml_events, "_PARSER", chosen)
    return name


def problems_of(text: str | bytes) -> list[str]:
    _, problems = read_document(text.encode() if isinstance(text, str) else text, "f")
    return [str(problem).removeprefix("f:") for problem in problems]


@table(
    ("text", "expected"),
    [
        ("no", False), ("On", True), ("~", None), ("", None), ("null", None), ("12", 12), ("0x1F", 31), ("010", 8),
        ("-0b11", -3),
        ("1_000", 1000), ("1:30", 90), ("1.5e+3", 1500.0), ("-.inf", float("-inf")), ("1:30.5", 90.5), ("12e3", "12e3"),
        ("2026-11-24", "2026-11-24"), ("=", "="), ("<<", "<<"), ("0x_", "0x_"), ("'no'", "no"), ('"12"', "12"),
        ("a b", "a b"),
    ],
)  # fmt: skip
def test_plain_scalars_have_their_yaml_types_but_dates_stay_text(
    parser: str, text: str, expected: object
) -> None:
    value = parse(f"a: {text}\n".encode(), "f").data["a"]
    assert value == expected
    assert type(value) is type(expected)


def test_every_node_has_its_position(parser: str) -> None:
    document = parse(b"a: 1\nrules:\n  - name: x\n    match: {host: [p, q]}\n", "f")
    assert document.pos(()) == Pos(1, 1)
    assert document.pos(("rules",)) == Pos(3, 3)
    assert document.key_pos(("rules",)) == Pos(2, 1)
    assert document.pos(("rules", 0)) == document.key_pos(("rules", 0)) == Pos(3, 5)
    assert document.pos(("rules", 0, "match", "host", 1)) == Pos(4, 23)
    assert document.key_pos(("rules", 0, "match", "host")) == Pos(4, 13)


def test_a_missing_path_has_the_position_of_its_nearest_ancestor(parser: str) -> None:
    document = parse(b"a:\n  b: c\n", "f")
    assert document.pos(("a", "b", 0)) == Pos(2, 6)
    assert document.pos(("a", "x", "y")) == Pos(2, 3)
    assert document.key_pos(("a", "x")) == Pos(1, 1)


def test_anchors_and_merges_work_and_own_keys_win(parser: str) -> None:
    document = parse(b"a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\nc: {<<: [{z: 1}, {z: 2, q: *a}]}\n", "f")
    assert document.data["b"] == {"y": 3, "x": 1}
    assert document.data["c"] == {"z": 1, "q": {"x": 1, "y": 2}}
    assert document.key_pos(("b", "x")) == Pos(1, 8)


def test_all_faults_are_reported_at_once(parser: str) -> None:
    text = "a: 1\nb: !!python/object:os.system x\na: 2\non: 3\n4: 5\n? [k]\n: v\n"
    text += "c: *none\nd: &d [*d]\n? ~\n: x\n--- second\n"
    assert problems_of(text) == [
        '2:4: a YAML tag; put text that starts with "!" in quotes',
        '3:1: duplicate key "a"; first defined on line 1',
        '4:1: key "on" is a boolean; expected text (YAML reads on, off, yes and no as true or false: put it in quotes)',
        '5:1: key "4" is a number; expected text (put it in quotes)',
        "6:3: a key is a list; expected text",
        '8:4: alias without an anchor before it; put text that starts with "*" in quotes',
        "9:8: alias inside its own anchor",
        "10:3: a key is empty; expected text",
        "12:1: a second document; expected one",
    ]  # fmt: skip


@table(
    ("text", "expected"),
    [
        ("a: b: c", '":" makes a mapping, which is not allowed here; put the text in quotes, or all keys in one column'),
        ("a: 'S3CRET", "a quoted text is not closed"),
        ('a: "\\q"', "an escape that YAML does not have; put text with a backslash in single quotes"),
        ("a: [1, 2", 'a list is not closed; expected "," or "]"'),
        ("a: {b: 1", 'a mapping is not closed; expected "," or "}"'),
        ("a: @S3CRET", 'text cannot start with "@"; put it in quotes'),
        ("a: `S3CRET", 'text cannot start with "`"; put it in quotes'),
        ("\ta: 1", "a tab cannot indent; expected spaces"),
        ("a:\n  - b\n c: S3CRET", INDENTATION),
        ("a: |S3CRET\n", 'expected a line break after "|" or ">", and indented text'),
        ("a: *", 'an anchor or alias without a name; put text with "&" or "*" at its start or behind a bracket in quotes'),
        ("a: {b: c-{1}}", '"{" begins a mapping here; put text that contains it in quotes'),
        ("a: 1\n...\nb: 2\n", "text after the end of the document"),
        ("a: S3CRET ]\n- x", INDENTATION),
    ],
)  # fmt: skip
def test_broken_syntax_is_described_without_quoting_the_file(parser: str, text: str, expected: str) -> None:
    (problem,) = problems_of(text)
    place, _, text_ = problem.removesuffix(" (it begins on line 1)").partition(": ")
    assert text_ in (expected, "not valid YAML", INDENTATION)
    assert all(part.isdigit() for part in place.split(":"))
    assert "S3CRET" not in problem
    if parser == "libyaml":
        assert text_ == expected


@table(
    ("text", "expected"),
    [
        (b"", f'1:1: the file is empty; expected a mapping with "rules"; {EXAMPLE}'),
        (b"text", f'1:1: the file is text; expected a mapping with "rules"; {EXAMPLE}'),
        ("a: b".encode("utf-16"), "1:1: the file is not UTF-8 but UTF-16; save it as UTF-8"),
        (b"a: " + b"9" * 5000, "1:4: a number of more than 64 characters; put it in quotes"),
        (b"#" * (256 * 1024 + 1), " the file is larger than 256 KiB"),
    ],
)
def test_files_without_a_mapping_are_refused(text: bytes, expected: str) -> None:
    assert problems_of(text) == [expected]


def test_a_byte_order_mark_is_ignored() -> None:
    assert parse(b"\xef\xbb\xbfa: b\n", "f").data == {"a": "b"}


def bombs() -> dict[str, str]:
    """Return texts that a plain loader expands without end, or follows until the stack overflows."""
    letters = "abcdefghijkl"
    aliases = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{name}: &{name} [{','.join(['*' + before] * 10)}]\n" for before, name in itertools.pairwise(letters)
    )
    merges = "a: &a {" + ",".join(f"k{n}: 1" for n in range(100)) + "}\n"
    merges += "".join(f"b{n}: {{<<: [{','.join(['*a'] * 50)}]}}\n" for n in range(500))
    long_text = f"a: &a {'x' * 100_000}\nb: [{','.join(['*a'] * 10_000)}]\n"
    ladder = "a0: &a0 [[[[x]]]]\n" + "".join(f"a{n}: &a{n} [[[[*a{n - 1}]]]]\n" for n in range(1, 5000))
    return {
        "aliases": aliases,
        "merges": merges,
        "long text": long_text,
        "ladder of aliases": ladder,
        "brackets": "a: " + "[" * 200_000,
        "braces": "{a: " * 60_000,
        "indentation": "".join(" " * level + "a:\n" for level in range(600)),
        "json": '{"a":' * 40_000 + "1" + "}" * 40_000,
        "base sixty": "a: " + "1:" * 100_000 + "1",
    }


@table("name", bombs())
def test_a_bomb_is_refused(parser: str, name: str) -> None:
    assert problems_of(bombs()[name])


def test_the_work_of_reading_grows_with_the_size_of_the_file() -> None:
    rule = "  - name: rule{n}\n    match: {{host: a{n}.example.com, path: /v1/**}}\n    upstream: https://b{n}.example.com\n"

    def read(count: int) -> None:
        text = "rules:\n" + "".join(rule.format(n=n) for n in range(count))
        assert len(parse(text.encode(), "f").data["rules"]) == count

    assert_linear(read, 100)


def test_json_is_read_as_json() -> None:
    document = parse(b'{\n\t"a": [1, 1e3, "\\ud83d\\ude00\\/"],\n\t"on": {"b": null}}', "f")
    assert document.data == {"a": [1, 1000.0, "\U0001f600/"], "on": {"b": None}}
    assert document.pos(("a", 1)) == Pos(2, 11)
    assert document.key_pos(("on",)) == Pos(3, 2)


def test_json_with_duplicate_keys_or_half_characters_is_refused() -> None:
    assert problems_of('{"a": 1,\n "a": "\\ud800"}') == [
        '2:2: duplicate key "a"; first defined on line 1',
        "2:7: half of a surrogate pair; expected a complete character",
    ]


def test_text_that_only_begins_like_json_is_yaml() -> None:
    assert parse(b"{a: b, c: [d, ], }", "f").data == {"a": "b", "c": ["d"]}


@table(
    ("key", "expected"),
    [("upsteam", '"upsteam"'), ("a\nb", "(not shown)"), ("x" * 65, "(not shown)"), ("sk-ant-api03-S3CRET", "(not shown)")],
)  # fmt: skip
def test_a_key_is_quoted_unless_it_may_be_a_secret(key: str, expected: str) -> None:
    assert shown(key) == expected


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_text_becomes_a_document_or_problems(text: bytes) -> None:
    for chosen in (yaml.SafeLoader, getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(yaml_events, "_PARSER", chosen)
            try:
                document = parse(text, "f")
            except RulesError as fault:
                assert fault.problems  # noqa: PT017 - either outcome is fine, another exception is not
            else:
                assert isinstance(document.data, dict)


JSON_VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", max_size=3), inner, max_size=3),
    max_leaves=12,
)  # fmt: skip


@given(st.dictionaries(st.text("abc", max_size=3), JSON_VALUES, max_size=4))
def test_written_json_is_read_back(data: dict[str, Any]) -> None:
    assert parse(json.dumps(data, indent=1).encode(), "f").data == data


class _Plain(yaml.SafeDumper):
    def ignore_aliases(self, data: object) -> bool:
        return True


@given(st.dictionaries(st.text("abc", max_size=3), JSON_VALUES, min_size=1, max_size=4))
def test_written_yaml_is_read_back(data: dict[str, Any]) -> None:
    assert parse(yaml.dump(data, Dumper=_Plain).encode(), "f").data == data
