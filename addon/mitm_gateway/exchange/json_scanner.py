"""A scanner that replaces the model's name in JSON as it streams by, byte for byte and in bounded memory.

It knows its place in the document (depth, and the key before a value) and holds back nothing but the one string
that it replaces, from the opening quote to the closing one.
"""

import json
import re
from collections.abc import Callable
from functools import lru_cache
from typing import TypeAlias

from ..llm.apis import Place
from ..text.short_cache import remember_short
from .json_models import PlaceNode, tree_of

# A model's name is short; a longer string passes unchanged rather than being held.
MAX_HELD_BYTES = 4096
# `"model"` with all of its letters escaped has 32 bytes.
MAX_KEY_BYTES = 64

_STRING_RUN = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
_STRUCTURE = re.compile(rb'["{}\[\],:]')
# JSON has these blanks only; with the two more of `\s`, broken JSON would read differently for each cut into chunks.
_BLANK = rb"[ \t\r\n]*+"
_STRING = rb'"(?:[^"\\]++|\\.)*+"'
_SCALAR = rb'[^"{}\[\], \t\r\n]++'
# A whole key and, where it is no candidate, a whole string or scalar behind it: the usual case in one step.
_KEY = re.compile(rb'%b"((?:[^"\\]++|\\.)*+)"%b:%b' % (_BLANK, _BLANK, _BLANK), re.DOTALL)
_PLAIN_VALUE = re.compile(rb"(?:%b|%b)%b(?=[,}])" % (_STRING, _SCALAR, _BLANK), re.DOTALL)
# Inside values that contain no model only brackets and unfinished strings matter.
_UNWATCHED = re.compile(rb'(?:[^"{}\[\]]++|%b)*+' % _STRING, re.DOTALL)

# Bytes that may precede a document or separate its parts; the last three are a byte order mark.
_BLANKS = b" \t\r\n\xef\xbb\xbf"


Rename: TypeAlias = Callable[[bytes], bytes]
"""Takes a JSON string and returns the one that replaces it."""


class ModelScanner:
    """Replaces the models at these places of JSON that arrives in pieces: one document, or several in a row."""

    def __init__(self, rename: Rename, places: tuple[Place, ...]) -> None:
        self._rename = rename
        self._root = tree_of(places)
        self._members = _members_without(names_in(places))
        self.reset()

    def reset(self) -> None:
        """Start over with the next document; what is held must have been taken before."""
        self._depth = 0
        # The open containers that may have a model, and which of them are lists; those inside any other may have none.
        self._watched: list[PlaceNode] = []
        self._lists: list[bool] = []
        self._key: str | None = None
        self._wants_key = False
        self.in_string = False
        self._escaped = False
        self._captured: bytearray | None = None
        self._is_target = False
        self._is_over = False
        self._overlong = False

    @property
    def is_inside(self) -> bool:
        """Return whether the document has begun and not ended, so that the next bytes belong to it."""
        return self._depth > 0 and not self._is_over

    def feed(self, data: bytes) -> bytes:
        """Return the bytes that may leave."""
        if self._is_over:
            return data
        out: list[bytes] = []
        start = pos = 0
        end = len(data)
        while pos < end and not self._is_over:
            if self.in_string:
                pos, start = self._string(data, pos, start, out)
            elif self._depth > len(self._watched):
                pos = self._skip(data, pos)
            elif not self._wants_key or self._key is not None:
                pos, start = self._structure(data, pos, start, out)
            elif members := self._members(data, pos):
                pos = members.end()
            elif found := _KEY.match(data, pos):
                pos = self._member(data, found)
            else:
                pos, start = self._structure(data, pos, start, out)
        if not (self._is_target and self.in_string):
            out.append(data[start:])
        return out[0] if len(out) == 1 else b"".join(out)

    def take_held(self) -> bytes:
        """Return what is held back, unedited: the document is broken or the stream is over."""
        held = bytes(self._captured or b"") if self._is_target and self.in_string else b""
        self._is_target = False
        self._captured = None
        self._is_over = True
        return held

    def _member(self, data: bytes, found: re.Match[bytes]) -> int:
        """Return the place behind a whole key, and behind its value where that is complete and no model."""
        self._key = _decoded_key(found[1])
        self._wants_key = False
        value = None if self._at_target() else _PLAIN_VALUE.match(data, found.end())
        return value.end() if value else found.end()

    def _structure(self, data: bytes, pos: int, start: int, out: list[bytes]) -> tuple[int, int]:
        found = _STRUCTURE.search(data, pos)
        place = found.start() if found else len(data)
        if data[pos:place].strip(_BLANKS):
            # A number, a word or nonsense is the value of the key, if any; before the document it ends it.
            self._is_over, self._key = self._depth == 0, None
        if found is None or self._is_over:
            return len(data), start
        match found[0]:
            case b'"':
                start = self._open_string(data, place, start, out)
            case b"{" | b"[" as mark:
                self._open(mark)
            case b"}" | b"]":
                self._close()
            case b",":
                self._wants_key = 0 < self._depth == len(self._watched) and not self._in_list
                self._key = None
            case _:  # behind a second colon there is no value of this key
                self._key = self._key if self._wants_key else None
                self._wants_key = False
        return place + 1, start

    def _open_string(self, data: bytes, place: int, start: int, out: list[bytes]) -> int:
        if self._wants_key and self._key is not None:
            self._is_over = True  # two keys without a value between them are no JSON
            return start
        self.in_string = True
        self._captured = bytearray()
        self._is_target = self._at_target()
        if not self._is_target:
            return start
        out.append(data[start:place])
        self._captured += b'"'
        return place + 1

    def _at_target(self) -> bool:
        if self._wants_key or self._key is None or self._depth != len(self._watched) or not self._watched:
            return False
        below = self._watched[-1].below.get(self._key)
        return below is not None and below.is_model

    def _open(self, mark: bytes) -> None:
        node = None
        if self._depth == 0:
            node = self._root
        elif self._depth == len(self._watched):
            node = self._watched[-1].below.get(None if self._in_list else self._key)
        self._depth += 1
        self._key = None
        if node is not None and (None in node.below if mark == b"[" else node.below.keys() - {None}):
            self._watched.append(node)
            self._lists.append(mark == b"[")
            self._wants_key = mark == b"{"

    @property
    def _in_list(self) -> bool:
        return bool(self._lists) and self._lists[-1]

    def _close(self) -> None:
        self._depth -= 1
        del self._watched[self._depth :], self._lists[self._depth :]
        self._key = None
        self._wants_key = False
        self._is_over = self._depth < 0  # another document may follow

    def _skip(self, data: bytes, pos: int) -> int:
        """Return the place behind values without a model: behind the next bracket or in an unfinished string."""
        found = _UNWATCHED.match(data, pos)
        place = found.end() if found else pos
        if place >= len(data):
            return place
        mark = data[place : place + 1]
        if mark == b'"':
            self.in_string = True
            self._captured = None
            self._is_target = False
        elif mark in b"{[":
            self._depth += 1
        else:
            self._close()
        return place + 1

    def _string(self, data: bytes, pos: int, start: int, out: list[bytes]) -> tuple[int, int]:
        begin = pos
        if self._escaped:
            self._escaped = False
            pos += 1
        found = _STRING_RUN.match(data, pos)
        pos = found.end() if found else pos
        is_open = pos >= len(data)
        if not is_open and data[pos] == 0x5C:  # a backslash at the end of the chunk
            self._escaped = is_open = True
            pos += 1
        self._capture(data[begin:pos], out)
        if self._is_target:
            start = pos
        return (pos, start) if is_open else (pos + 1, self._end_string(pos, start, out))

    def _capture(self, piece: bytes, out: list[bytes]) -> None:
        if self._captured is None:
            return
        if self._is_target:
            self._captured += piece
            if len(self._captured) > MAX_HELD_BYTES:
                out.append(bytes(self._captured))
                self._captured = bytearray()
                self._overlong = True
        elif self._wants_key and len(self._captured) <= MAX_KEY_BYTES:
            self._captured += piece

    def _end_string(self, pos: int, start: int, out: list[bytes]) -> int:
        self.in_string = False
        captured, self._captured = self._captured, None
        if self._is_target:
            text = bytes(captured or b"") + b'"'
            out.append(text if self._overlong else self._rename(text))
            self._is_target = self._overlong = False
            self._key = None
            return pos + 1
        if self._wants_key and captured is not None:
            self._key = _decoded_key(bytes(captured))
        return start


def names_in(places: tuple[Place, ...]) -> tuple[str, ...]:
    """Return the keys that models have."""
    return tuple(dict.fromkeys(str(place[-1]) for place in places))


_MatchAt: TypeAlias = Callable[[bytes, int], re.Match[bytes] | None]


@lru_cache(maxsize=64)
def _members_without(names: tuple[str, ...]) -> _MatchAt:
    """Return the pattern of any number of simple members, with a comma behind each, none of which has such a name."""
    return re.compile(_members_pattern(names) + rb"+", re.DOTALL).match


def _members_pattern(names: tuple[str, ...]) -> bytes:
    others = "|".join(map(re.escape, names)).encode()
    member = rb'%b"(?!(?:%b)")[^"\\]*+"%b:%b(?:%b|%b)%b,'
    return rb"(?:%b)+" % (member % (_BLANK, others, _BLANK, _BLANK, _STRING, _SCALAR, _BLANK))


# A top-level model behind simple members only, as responses have it, short enough to be held.
_LEADING_MODEL = re.compile(
    rb'%b\{(?:%b+)?+%b"model"%b:%b("[^"\\]{0,%d}+")%b[,}]'
    % (_BLANK, _members_pattern(("model",)), _BLANK, _BLANK, _BLANK, MAX_HELD_BYTES - 2, _BLANK),
    re.DOTALL,
)


def leading_model(chunk: bytes) -> tuple[int, int] | None:
    """Return the place of the top-level model's value in the first chunk of a response, if it is certain.

    It is certain if the model precedes all nested values and nothing behind it can be another key of a model.
    """
    found = _LEADING_MODEL.match(chunk)
    # `find`, as `in` reads its argument as a number first, and builds the message of an error that is discarded.
    if not found or chunk.find(b'"model"', found.end()) >= 0 or chunk.find(b"\\u006") >= 0:
        return None
    return found.span(1)


def _decoded_key(text: bytes) -> str | None:
    if len(text) > MAX_KEY_BYTES:
        return None
    if b"\\" not in text:
        return text.decode("ascii", "replace")
    try:
        key = json.loads(b'"' + text + b'"')
    except ValueError:
        return None
    return key if isinstance(key, str) else None


@remember_short
def json_string(text: str) -> bytes:
    """Return the text as a JSON string."""
    try:
        return json.dumps(text, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can only express in ASCII
        return json.dumps(text).encode()
