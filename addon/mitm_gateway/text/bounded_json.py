"""JSON of a peer, read in bounded time: its value, or the readable part of one that is cut off or too large."""

# Parsed values can need a hundred times the memory of their text, so they are counted first.

import contextlib
import json
import re
from collections.abc import Iterator
from os import urandom
from struct import unpack
from typing import Any

from .turns import Turns, finish

# More than any conversation has; hostile texts have millions.
MAX_VALUES = 100_000
# The bounds of a search for the readable part of a text, in characters and in tokens.
MAX_REPAIRED, MAX_TOKENS = 1 << 19, 50_000
# Longer numbers stay text: converting thousands of digits back and forth takes quadratic time.
_MAX_DIGITS = 20

_BEFORE_VALUES = (b",", b"[", b"{")
_TOKENS = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+("?)|[\[\]{},]', re.DOTALL)
_CLOSING = {"{": "}", "[": "]"}


class TooManyValuesError(ValueError):
    """A JSON text with too many values."""


def parsed(text: bytes | str) -> Any:
    """Return the value of a JSON text. Raises ValueError and RecursionError."""
    data = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    if finish(has_too_many_values_in_turns(data)):
        raise TooManyValuesError
    if isinstance(text, bytes):
        text = text.decode(json.detect_encoding(text), "surrogatepass")
    return _DECODER.decode(text)


def parsed_object(text: bytes | str) -> dict[str, Any] | None:
    """Return the object of a JSON text; None for any other text."""
    try:
        data = parsed(text)
    except (ValueError, RecursionError):
        return None
    return data if isinstance(data, dict) else None


def _number(digits: str) -> int | str:
    return int(digits) if len(digits) <= _MAX_DIGITS else digits


_DECODER = json.JSONDecoder(parse_int=_number)


def has_too_many_values_in_turns(data: bytes) -> Turns[bool]:
    """Return whether a JSON text has more than `MAX_VALUES`."""
    if _marks(data) <= MAX_VALUES:
        return False
    # Most of the marks may be inside strings.
    marks = 0
    for outside, _ in _pieces(data):
        marks += _marks(outside)
        if marks > MAX_VALUES:
            return True
        yield
    return False


def _marks(data: bytes) -> int:
    return sum(map(data.count, _BEFORE_VALUES))


def _pieces(data: bytes) -> Iterator[tuple[bytes, int]]:
    """Yield the part of each piece of a JSON text that is outside strings, and the number of quotes in the piece."""
    start, is_inside = 0, 0
    while start < len(data):
        end = _piece_end(data, start)
        parts = data[start:end].replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')
        yield b"".join(parts[is_inside::2]), len(parts) - 1
        is_inside ^= (len(parts) - 1) & 1
        start = end


# Bytes that CPython needs for an array or object, for each of its members, and for a short string or a key.
CONTAINER_BYTES, MEMBER_BYTES, STRING_BYTES, ENTRY_BYTES = 64, 8, 56, 250
# Objects of requests have fewer members on average; the keys of larger ones stay in memory together.
USUAL_MEMBERS = 50
_PIECE = 1 << 18
_BACKSLASHES = re.compile(rb"\\*+")


# Bytes of simdjson's index and tape for what a mark may begin: an array and its first value, an object, a value, half of
# a key with its value.
_SIMDJSON_COSTS = {b"[": 44, b"{": 24, b",": 24, b'"': 21}
_SAMPLES, _SAMPLE_BYTES = 256, 64

# The most that a parsed text may need, in multiples of its size; smaller texts cannot need much.
MAX_GROWTH, SMALL_TEXT = 6, 1 << 18
# The most objects, commas and colons in a body: CPython's scanner takes 60 to 120 ns for each, during which no other
# request is served. An array takes four times as long, as the garbage collector visits it.
MAX_BODY_VALUES, ARRAY_VALUES = 2_000_000, 4


def is_overgrown(data: bytes) -> bool:
    """Return whether a large JSON text has millions of values, or would need more than six times its size in memory."""
    return finish(is_overgrown_in_turns(data))


def is_overgrown_in_turns(data: bytes) -> Turns[bool]:
    """Return whether a text is overgrown, a piece at a time."""
    if len(data) <= SMALL_TEXT:
        return False
    most = MAX_GROWTH * len(data)
    # Marks inside strings count here too; only few texts need the exact count.
    has_many = yield from _has_many_marks(data, most)
    return has_many and (yield from _needs_more_than(most, data))


def is_sparse(data: bytes) -> bool:
    """Return whether a JSON text has so few values that simdjson checks it within six times its size, by a sample.

    The text and two copies of it leave three times its size for the marks; the sample may have two thirds of that. A
    text that needs seven times its size in all passes once in 1e10 times, as the sample's places are random.
    """
    if len(data) <= SMALL_TEXT:
        return True
    last = len(data) - _SAMPLE_BYTES
    places = [number * last >> 32 for number in unpack(f"{_SAMPLES}I", urandom(4 * _SAMPLES))]
    sample = b"".join([data[at : at + _SAMPLE_BYTES] for at in places])
    return sum(sample.count(mark) * cost for mark, cost in _SIMDJSON_COSTS.items()) <= 2 * len(sample)


def _has_many_marks(data: bytes, most: int) -> Turns[bool]:
    arrays = objects = quotes = colons = commas = 0
    for start in range(0, len(data), _PIECE):
        end = start + _PIECE
        arrays += data.count(b"[", start, end)
        objects += data.count(b"{", start, end)
        quotes += data.count(b'"', start, end)
        colons += data.count(b":", start, end)
        commas += data.count(b",", start, end)
        if (
            CONTAINER_BYTES * (arrays + objects) > most // 2
            or STRING_BYTES // 2 * quotes > most
            or ENTRY_BYTES * colons > most
            or ARRAY_VALUES * arrays + objects + commas + colons > MAX_BODY_VALUES
        ):
            return True
        yield
    return False


def _needs_more_than(most: int, data: bytes) -> Turns[bool]:
    """Estimate the memory that the values of a JSON text need, without building them; too many need too much."""
    arrays = objects = quotes = colons = commas = 0
    for outside, strings in _pieces(data):
        arrays += outside.count(b"[")
        objects += outside.count(b"{")
        quotes += strings
        colons += outside.count(b":")
        commas += outside.count(b",")
        needed = CONTAINER_BYTES * (arrays + objects) + MEMBER_BYTES * commas
        # These can settle it early: their share only grows.
        if needed > most or ARRAY_VALUES * arrays + objects + commas + colons > MAX_BODY_VALUES:
            return True
        yield
    # Objects are dropped as soon as they are complete, and their strings with them; those of arrays stay.
    in_arrays = max(0, quotes // 2 - 2 * colons)
    in_large_objects = max(0, colons - USUAL_MEMBERS * (arrays + objects))
    return needed + STRING_BYTES * in_arrays + ENTRY_BYTES * in_large_objects > most


def _piece_end(data: bytes, start: int) -> int:
    """Return the end of a piece that does not cut an escape sequence."""
    end = min(start + _PIECE, len(data))
    if end == len(data) or data[end - 1] != 0x5C:
        return end
    run = _BACKSLASHES.match(data, end)
    return min((run.end() if run else end) + 1, len(data))


def readable_part(data: bytes) -> Any:
    """Return the beginning of a JSON text that cannot be read as a whole, with all that is open closed, or None."""
    text = data[:MAX_REPAIRED].decode("utf-8", "replace")
    text, closing, safe, in_string = _open_ends(text)
    end = _before_escape(text) if in_string else len(text)
    candidates = [text[:end] + ('"' if in_string else "") + closing]
    # A key without its value cannot be closed; the text before it can.
    candidates.append(text[:safe] + _open_ends(text[:safe])[1])
    for candidate in candidates:
        with contextlib.suppress(ValueError, RecursionError):
            return json.loads(candidate, strict=False, parse_int=_number)
    return None


def _open_ends(text: str) -> tuple[str, str, int, bool]:
    """Return the text as far as it is searched, the brackets that close it, the position where a value last ended or
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
    """Return the end of a text without an escape that is cut off, such as `\\u00`."""
    found = re.search(r"(?<!\\)(?:\\\\)*(\\(?:u[0-9a-fA-F]{0,3})?)$", text[-4096:])
    return len(text) - len(found[1]) if found else len(text)
