"""JSON from elsewhere, read in bounded time: as a value, or the readable part of one that is cut off or too much."""

# What a parser makes of a text can cost a hundred times more than the text is long, so its values are counted first.

from __future__ import annotations

import contextlib
import json
import re
from typing import Any

# More than any conversation has; hostile ones have millions.
MAX_VALUES = 100_000
# How much of a text is looked through for its readable part, and how many tokens of it.
MAX_REPAIRED, MAX_TOKENS = 1 << 19, 50_000
# Longer numbers are shown as they stand: to make one of a thousand digits, and text of it again, takes its time.
_MAX_DIGITS = 20

_BEFORE_VALUES = (b",", b"[", b"{")
_TOKENS = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+("?)|[\[\]{},]', re.DOTALL)
_CLOSING = {"{": "}", "[": "]"}


class TooManyValuesError(ValueError):
    """A JSON text that would take long to read."""


def parsed(text: bytes | str) -> Any:
    """The value of a JSON text. Raises ValueError and RecursionError."""
    data = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    if _has_too_many_values(data):
        raise TooManyValuesError
    if isinstance(text, bytes):
        text = text.decode(json.detect_encoding(text), "surrogatepass")
    return _DECODER.decode(text)


def _number(digits: str) -> int | str:
    return int(digits) if len(digits) <= _MAX_DIGITS else digits


_DECODER = json.JSONDecoder(parse_int=_number)


def _has_too_many_values(data: bytes) -> bool:
    if _marks(data) <= MAX_VALUES:
        return False
    # Most of them may stand inside of strings, which are every second piece between two quotes.
    data = data.replace(rb"\\", b"").replace(rb"\"", b"")
    return data.count(b'"') > 4 * MAX_VALUES or _marks(b"".join(data.split(b'"')[::2])) > MAX_VALUES


def _marks(data: bytes) -> int:
    return sum(map(data.count, _BEFORE_VALUES))


def readable_part(data: bytes) -> Any:
    """The beginning of a JSON text that cannot be read whole; what is open at its end gets closed. Else None."""
    text = data[:MAX_REPAIRED].decode("utf-8", "replace")
    text, closing, safe, in_string = _open_ends(text)
    end = _before_escape(text) if in_string else len(text)
    candidates = [text[:end] + ('"' if in_string else "") + closing]
    # A key without its value cannot be closed, the text before it can.
    candidates.append(text[:safe] + _open_ends(text[:safe])[1])
    for candidate in candidates:
        with contextlib.suppress(ValueError, RecursionError):
            return json.loads(candidate, strict=False, parse_int=_number)
    return None


def _open_ends(text: str) -> tuple[str, str, int, bool]:
    """A text as far as it is looked through, the brackets that close what is open, where a value last ended or
    began, and whether a string is open.
    """
    closing: list[str] = []
    safe, in_string = 0, False
    for count, token in enumerate(_TOKENS.finditer(text)):
        mark = token[0]
        if count == MAX_TOKENS:
            text = text[: token.start()]
            break
        if mark in _CLOSING:
            closing.append(_CLOSING[mark])
            safe = token.end()
        elif mark == ",":
            safe = token.start()
        elif mark in ("}", "]"):
            if not closing or closing.pop() != mark:
                break
        elif not token[1]:
            in_string = True
    return text, "".join(reversed(closing)), safe, in_string


def _before_escape(text: str) -> int:
    """Where a text ends without an escape that is cut off, such as `\\u00`."""
    found = re.search(r"(?<!\\)(?:\\\\)*(\\(?:u[0-9a-fA-F]{0,3})?)$", text[-4096:])
    return len(text) - len(found[1]) if found else len(text)
