"""Text of a peer made printable: control characters become visible, long parts are folded."""

import json
import re
from functools import lru_cache
from itertools import islice
from typing import Any

# Control characters except newline and tab, C1 controls, marks that change the direction of text, and lone surrogates,
# which no terminal and no page can encode.
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\U000e0000-\U000e007f]"
)
_CONTROL_PICTURES = 0x2400
_TO_LINE = str.maketrans({"\n": "\u240a", "\t": "\u2409"})
# Longer names are cut where they are shown.
MAX_NAME = 256
# Objects with more keys are data that nobody reads line by line.
MAX_LISTED = 500


def visible(text: str) -> str:
    """Return the text with a symbol or an escape for every character that acts on a terminal."""
    return _UNSAFE.sub(_picture, text.replace("\r\n", "\n"))


def one_line(text: str) -> str:
    """Return the text of a peer as part of a line: nothing in it acts on a terminal, a log or an encoder."""
    if text.isprintable():
        return text
    return visible(text).translate(_TO_LINE)


def shown_name(text: str) -> str:
    """Return a name that a peer chose, such as a model's, on one line and cut where it is very long."""
    if len(text) <= MAX_NAME and text.isprintable():
        return text
    shown = one_line(text[: MAX_NAME + 1])
    return shown if len(shown) <= MAX_NAME else f"{shown[: MAX_NAME - 1]}…"


def _picture(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code < 0x20:
        return chr(_CONTROL_PICTURES + code)
    return "\u2421" if code == 0x7F else f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def json_text(value: Any) -> str:
    """Return plain data as JSON on one line, with escapes for every character that acts on a terminal."""
    return _UNSAFE.sub(lambda found: _escape(found[0]), json.dumps(value, ensure_ascii=False))


def _escape(character: str) -> str:
    return "\\u007f" if character == "\x7f" else json.dumps(character)[1:-1]


def folded(text: str, limit: int) -> str:
    """Return the text, or its beginning and a line with the size of the rest."""
    # A tail that is hardly longer than the line about it is shown.
    if len(text) <= limit + 100:
        return text
    return f"{text[:limit]}\n… {len(text) - limit:,} more characters"


def wrapped(text: str, width: int) -> str:
    """Return the text with its long lines broken at blanks, else after punctuation; the rest of a line keeps its indent."""
    return re.sub(
        rf"^( *)(?=.{{{width + 1}}}).*", lambda found: _broken(found, width), text, flags=re.MULTILINE
    )


@lru_cache(maxsize=128)
def _pieces(room: int) -> re.Pattern[str]:
    return re.compile(rf".{{1,{room}}}(?: +|$)|.{{1,{room}}}(?<=[,;:)}}\]])|.{{1,{room}}}")


def _broken(found: re.Match[str], width: int) -> str:
    indent, line = found[1][: width // 2], found[0][len(found[1][: width // 2]) :]
    room = width - len(indent)
    pieces = _pieces(room).findall(line)
    return "\n".join(indent + piece.rstrip(" ") for piece in pieces)


def indented(text: str) -> str:
    """Return the text indented by two columns."""
    return "  " + text.replace("\n", "\n  ")


def counted(count: int, noun: str) -> str:
    """Return a number with its noun, such as "1 rule" or "3 rules"."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def size(count: int) -> str:
    """Return a number of bytes in words."""
    if count < 1000:
        return f"{count} bytes" if count != 1 else "1 byte"
    return f"{count / 1000:.1f} kB" if count < 1_000_000 else f"{count / 1_000_000:.1f} MB"


def short_count(count: int) -> str:
    """Return a number in at most five characters, such as 31.6k."""
    if count < 1_000:
        return str(count)
    factor, unit = (1_000, "k") if count < 999_950 else (1_000_000, "M")
    return f"{count / factor:.1f}".removesuffix(".0") + unit


def dollars(amount: float) -> str:
    """Return a sum of US dollars as text."""
    if 0 < amount < 0.0001:
        return "<$0.0001"
    return f"${amount:,.2f}" if amount >= 1 else f"${amount:.4f}"


def compact(value: Any) -> str:
    """Return plain data on one line."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def listed(value: Any) -> str:
    """Return plain data with one line for each key of an object; text stays as it is."""
    if not isinstance(value, dict):
        return compact(value)
    entries = [_entry(str(key), compact(item)) for key, item in islice(value.items(), MAX_LISTED)]
    more = [f"… {len(value) - MAX_LISTED:,} more keys"] if len(value) > MAX_LISTED else []
    return "\n".join([*entries, *more])


def _entry(key: str, text: str) -> str:
    return f"{key}:\n{indented(text)}" if "\n" in text else f"{key}: {text}"
