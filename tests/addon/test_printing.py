"""Texts of peers in mitmproxy's terminal and views."""

from io import StringIO

from mitmproxy.addons.dumper import Dumper
from mitmproxy.utils import strutils

from support.patched import applied
from support.table import table

# A control sequence introducer of one character, an override of direction, a separator of lines, a hidden tag.
MARKS = "\x9b\u202e\u2028\u2066\U000e0041"


@table("keep_spacing", [True, False])
@table("text", ["plain", "a\r\nb\tc\rd", "".join(map(chr, range(128))), "\u2605 é 日"])
def test_mitmproxys_own_replacements_stay(text: str, keep_spacing: bool) -> None:
    expected = strutils.escape_control_characters(text, keep_spacing)
    with applied("printable-text"):
        assert strutils.escape_control_characters(text, keep_spacing) == expected


@table("text", [MARKS, f"a\r\n{MARKS}\tb", f"https://a.test/{MARKS}\x1b[31m"])
def test_marks_that_act_on_a_terminal_are_visible(text: str) -> None:
    with applied("printable-text"):
        shown = strutils.escape_control_characters(text)
    assert not set(shown) & set(MARKS)
    assert "\\u202e" in shown


@table("text", [f"closed: {MARKS}", "\x1b]0;title\x07", "\x1b[2J", "a\rb"])
def test_a_line_of_mitmdump_acts_on_no_terminal(text: str) -> None:
    printed = StringIO()
    with applied("printable-text"):
        Dumper(printed).echo(text)
    assert not set(printed.getvalue()) & {*MARKS, "\x1b", "\x07", "\r"}


def test_mitmdumps_colours_stay() -> None:
    printed = StringIO()
    dumper = Dumper(printed)
    dumper.out_has_vt_codes = True
    with applied("printable-text"):
        dumper.echo(dumper.style("GET", fg="green", bold=True) + " \x9b", ident=4, fg="red")
    shown = printed.getvalue()
    assert "\x1b[32m" in shown
    assert "\x1b[31m" in shown
    assert "\\u009b" in shown
