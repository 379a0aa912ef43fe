"""Texts of peers in mitmproxy's terminal and views."""

from __future__ import annotations

import pytest
from mitmproxy.utils import strutils

from support.patched import applied

# A control sequence introducer of one character, an override of direction, a separator of lines, a hidden tag.
MARKS = "\x9b\u202e\u2028\u2066\U000e0041"


@pytest.mark.parametrize("keep_spacing", [True, False])
@pytest.mark.parametrize("text", ["plain", "a\r\nb\tc\rd", "".join(map(chr, range(128))), "\u2605 é 日"])
def test_mitmproxys_own_replacements_stay(text: str, keep_spacing: bool) -> None:
    expected = strutils.escape_control_characters(text, keep_spacing)
    with applied("printable-text"):
        assert strutils.escape_control_characters(text, keep_spacing) == expected


@pytest.mark.parametrize("text", [MARKS, f"a\r\n{MARKS}\tb", f"https://a.test/{MARKS}\x1b[31m"])
def test_marks_that_act_on_a_terminal_are_visible(text: str) -> None:
    with applied("printable-text"):
        shown = strutils.escape_control_characters(text)
    assert not set(shown) & set(MARKS)
    assert "\\u202e" in shown
