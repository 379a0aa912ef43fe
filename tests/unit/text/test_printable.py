"""Text of peers, made printable."""

from hypothesis import given
from hypothesis import strategies as st

from mitm_gateway.text.printable import (
    MAX_NAME,
    dollars,
    folded,
    listed,
    one_line,
    short_count,
    shown_name,
    size,
    visible,
)
from support.table import table


@table(
    ("text", "expected"),
    [
        ("a\tb\nc\r\nd", "a\tb\nc\nd"),
        ("\x1b[31m", "␛[31m"),
        ("a\rb", "a␍b"),
        ("\x9b31m\x7f", "\\u009b31m␡"),
        ("a\u202eb\u2066", "a\\u202eb\\u2066"),
        ("\ud83d", "\\ud83d"),
        ("é 漢 😀", "é 漢 😀"),
    ],
)
def test_characters_that_act_on_a_terminal_become_visible(text: str, expected: str) -> None:
    assert visible(text) == expected


@given(st.text(st.characters(), max_size=40))
def test_no_character_that_acts_on_a_terminal_remains(text: str) -> None:
    shown = visible(text)
    shown.encode()
    assert all(character.isprintable() or character in "\n\t" or ord(character) > 0x9F for character in shown)


def test_a_tail_is_folded_only_where_that_is_shorter() -> None:
    assert folded("x" * 150, 100) == "x" * 150
    assert folded("x" * 2000, 100) == "x" * 100 + "\n… 1,900 more characters"


def test_sizes_are_shown_in_words() -> None:
    assert [size(n) for n in (0, 999, 1000, 999_949, 12_345_678)] == [
        "0 bytes", "999 bytes", "1.0 kB", "999.9 kB", "12.3 MB",
    ]  # fmt: skip


def test_an_object_has_a_line_for_each_key() -> None:
    assert listed({"a": "x", "b": [1], "c": "1\n2"}) == "a: x\nb: [1]\nc:\n  1\n  2"
    assert listed("text") == "text"


@given(st.text(st.characters(), max_size=400))
def test_a_part_of_a_line_is_printable_and_can_be_encoded(text: str) -> None:
    shown = one_line(text)
    shown.encode()
    assert not any(character in shown for character in "\n\r\t\x1b\x9b\u2028\u202e")
    assert len(shown_name(text)) <= MAX_NAME


def test_a_name_stays_and_an_endless_one_is_cut() -> None:
    assert shown_name("claude-opus-4-8") == "claude-opus-4-8"
    assert shown_name("a" * MAX_NAME) == "a" * MAX_NAME
    assert shown_name("a" * 20_000_000) == "a" * (MAX_NAME - 1) + "…"
    assert shown_name("\x1b]0;owned\x07\nforged") == "␛]0;owned␇␊forged"


def test_counts_are_short() -> None:
    counts = (0, 999, 1_000, 1_049, 31_640, 999_949, 999_950, 1_234_567)
    assert list(map(short_count, counts)) == ["0", "999", "1k", "1k", "31.6k", "999.9k", "1M", "1.2M"]


def test_sums_are_readable() -> None:
    assert [dollars(sum_) for sum_ in (0, 0.00001, 0.0289, 0.5, 1.234, 1234.5)] == [
        "$0.0000", "<$0.0001", "$0.0289", "$0.5000", "$1.23", "$1,234.50",
    ]  # fmt: skip
