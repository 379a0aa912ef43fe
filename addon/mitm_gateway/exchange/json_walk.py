"""A walk through the members of JSON's objects and arrays; the standard library's C scanner checks and skips values."""

import json
import re
from collections.abc import Callable
from typing import NamedTuple, NoReturn, TypeAlias

from .body_error import BodyError, Reason

BLANK = r"[ \t\n\r]*+"
_CHARACTERS = r'[^"\\\x00-\x1f]*+'
TEXT = f'"{_CHARACTERS}"'


def refuse_constant(_name: str) -> NoReturn:
    """Refuse a number that JSON does not have."""
    raise json.JSONDecodeError("NaN and Infinity are not JSON", "", 0)


# `bool` drops each object as soon as it is complete, and each fraction. Without it the values of the whole body pile up
# and the garbage collector visits them again and again: 3.5 times slower on 10 MB of small objects, with far more memory.
_scan_value: Callable[[str, int], tuple[object, int]] = json.JSONDecoder(
    object_hook=bool, parse_float=bool, parse_constant=refuse_constant
).scan_once  # type: ignore[attr-defined]
scan_string: Callable[[str, int, bool], tuple[str, int]] = json.decoder.scanstring  # type: ignore[attr-defined]
_blanks = re.compile(BLANK).match
_colon = re.compile(rf"{BLANK}:{BLANK}").match
_plain_key = re.compile(rf'"({_CHARACTERS})"{BLANK}:{BLANK}').match
_behind_value = re.compile(rf"{BLANK}([,}}\]]){BLANK}").match


class Member(NamedTuple):
    """Position of a member of an object or an element of an array; `start` is the key's quote or the value."""

    key: str | int
    start: int
    value: int
    end: int


Visit: TypeAlias = Callable[[str | int, int, int], int]
"""Takes a key, or the number of an element, its position and the position of the value, and returns the value's end."""


def skip_blanks(text: str, at: int) -> int:
    """Return the position of the next character that is not blank."""
    found = _blanks(text, at)
    assert found
    return found.end()


def value_end(text: str, at: int) -> int:
    """Return the end of the value that starts there. Raises what the scanner raises if there is none."""
    return _scan_value(text, at)[1]


class Walker:
    """Visits the members of objects and arrays, `most` in total."""

    def __init__(self, most: int) -> None:
        self._steps = iter(range(most))

    def walk(self, text: str, opening: int, visit: Visit, first: int | None = None) -> int:
        """Visit the members of the object or array that opens there, and return the position of its closing bracket.

        `first` is the position of the first member to visit, unless it is the first of all.
        """
        is_object = text[opening] == "{"
        closing = "}" if is_object else "]"
        at, number = first or skip_blanks(text, opening + 1), 0
        key: str | int
        if first is None and text[at : at + 1] == closing:
            return at
        for _ in self._steps:
            if not is_object:
                key, value = number, at
                number += 1
            elif found := _plain_key(text, at):
                key, value = found[1], found.end()
            else:
                key, value = _unusual_key(text, at)
            if (found := _behind_value(text, visit(key, at, value))) is None:
                raise BodyError(Reason.NOT_JSON)
            if (mark := found[1]) != ",":
                if mark != closing:
                    raise BodyError(Reason.NOT_JSON)
                return found.start(1)
            at = found.end()
        raise BodyError(Reason.TOO_MANY)

    def members(self, text: str, opening: int, visit: Visit) -> tuple[list[Member], int]:
        """Return the members of the object or array that opens there, and the position of its closing bracket."""
        members: list[Member] = []

        def note(key: str | int, start: int, value: int) -> int:
            end = visit(key, start, value)
            members.append(Member(key, start, value, end))
            return end

        return members, self.walk(text, opening, note)


def _unusual_key(text: str, at: int) -> tuple[str, int]:
    """Return the key that starts there, perhaps with escapes, and the position of its value."""
    if text[at : at + 1] != '"':
        raise BodyError(Reason.NOT_JSON)
    key, end = scan_string(text, at + 1, True)
    if not (colon := _colon(text, end)):
        raise BodyError(Reason.NOT_JSON)
    return key, colon.end()
