"""Puts the client's model name back into an answer while it streams, editing no other byte.

A scanner walks the JSON as it comes and knows only where it is: how deep, and behind which key. Nothing is
held back but the one string that is edited, from its opening quote to its closing one.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache

# A model's name is short; a longer string is passed as it is rather than held.
MAX_HELD_BYTES = 4096
# `"model"` with all of its letters escaped has 32 bytes.
MAX_KEY_BYTES = 64

_STRING_RUN = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
# One search for both: looking for each alone reads the rest of the chunk again for every line.
_LINE_END = re.compile(rb"[\r\n]")
_STRUCTURE = re.compile(rb'["{}\[\],:]')
# A whole key and, where it is no candidate, a whole string or scalar behind it: the usual case in one step.
_KEY = re.compile(rb'\s*"((?:[^"\\]++|\\.)*+)"\s*:\s*', re.DOTALL)
_PLAIN_VALUE = re.compile(rb'(?:"(?:[^"\\]++|\\.)*+"|[^"{}\[\],\s]+)\s*(?=[,}])', re.DOTALL)
# Any number of such members, with the comma behind each: none of these keys is "model" in any spelling.
_MEMBERS = re.compile(
    rb'(?:\s*"(?!model")[^"\\]*+"\s*:\s*(?:"(?:[^"\\]++|\\.)*+"|[^"{}\[\],\s]++)\s*,)++', re.DOTALL
)
# The model behind such members only, as answers have it, with its quotes no longer than what may be held.
_LEADING_MODEL = re.compile(
    rb'\s*\{(?:%b)?\s*"model"\s*:\s*("[^"\\]{0,%d}+")\s*[,}]' % (_MEMBERS.pattern, MAX_HELD_BYTES - 2),
    re.DOTALL,
)
# Inside values that hold no model only brackets and unfinished strings matter.
_UNWATCHED = re.compile(rb'(?:[^"{}\[\]]++|"(?:[^"\\]++|\\.)*+")*+', re.DOTALL)

# What may stand before a document and between its parts; the last three are a byte order mark.
_BLANKS = b" \t\r\n\xef\xbb\xbf"

_TOP: frozenset[str] = frozenset({"model"})
# Anthropic's `message_start` has it in `message`, OpenAI's `response.*` events in `response`.
PARENTS: frozenset[str] = frozenset({"message", "response"})


class _Scanner:
    """One JSON document, fed in pieces; `parents` are the top-level objects whose `model` is edited too."""

    def __init__(self, name: str, parents: frozenset[str]) -> None:
        self._replacement = _json_string(name)
        self._parents = parents
        self.reset()

    def reset(self) -> None:
        """Starts over with the next document. What is held must have been taken before."""
        self._depth = 0
        self._watched = 0  # how many of the open containers are objects that may hold a model
        self._key: str | None = None
        self._wants_key = False
        self._in_string = False
        self._escaped = False
        self._captured: bytearray | None = None
        self._is_target = False
        self._is_over = False
        self._overlong = False

    @property
    def is_inside(self) -> bool:
        """Whether the document has begun and not ended: the next bytes go on with it."""
        return self._depth > 0 and not self._is_over

    def feed(self, data: bytes) -> bytes:
        """The bytes that may leave."""
        if self._is_over:
            return data
        out: list[bytes] = []
        start = pos = 0
        end = len(data)
        while pos < end:
            if self._in_string:
                pos, start = self._string(data, pos, start, out)
            elif self._depth > self._watched:
                pos = self._skip(data, pos)
            elif self._wants_key and (members := _MEMBERS.match(data, pos)):
                pos = members.end()
            elif self._wants_key and self._key is None and (found := _KEY.match(data, pos)):
                pos = self._member(data, found)
            else:
                pos, start = self._structure(data, pos, start, out)
            if self._is_over:
                break
        if not (self._is_target and self._in_string):
            out.append(data[start:])
        return out[0] if len(out) == 1 else b"".join(out)

    def take_held(self) -> bytes:
        """What is held back, unedited; the document is broken or the stream is over."""
        held = bytes(self._captured or b"") if self._is_target and self._in_string else b""
        self._is_target = False
        self._captured = None
        self._is_over = True
        return held

    def take_held_at_line_end(self) -> bytes:
        """What a line's end cuts off: a string cannot go on over it, so the document is broken."""
        return self.take_held() if self._in_string else b""

    def _member(self, data: bytes, found: re.Match[bytes]) -> int:
        """Past a whole key, and past its value where that is whole too and none of ours."""
        self._key = _decoded_key(found[1])
        self._wants_key = False
        value = None if self._key == "model" else _PLAIN_VALUE.match(data, found.end())
        return value.end() if value else found.end()

    def _structure(self, data: bytes, pos: int, start: int, out: list[bytes]) -> tuple[int, int]:
        found = _STRUCTURE.search(data, pos)
        place = found.start() if found else len(data)
        if data[pos:place].strip(_BLANKS):
            self._pass_scalar()
        if found is None or self._is_over:
            return len(data), start
        mark = found[0]
        if mark == b'"' and self._wants_key and self._key is not None:
            self._is_over = True  # a second key without a value between is no JSON
        elif mark == b'"':
            self._in_string = True
            self._captured = bytearray()
            self._is_target = self._at_target()
            if self._is_target:
                out.append(data[start:place])
                self._captured += b'"'
                start = place + 1
        elif mark in b"{[":
            self._open(mark)
        elif mark in b"}]":
            self._close()
        elif mark == b",":
            self._wants_key = self._depth == self._watched
            self._key = None
        else:
            # Behind a second colon stands no value of this key.
            self._key = self._key if self._wants_key else None
            self._wants_key = False
        return place + 1, start

    def _pass_scalar(self) -> None:
        """A number, a word or nonsense: the value of the key, if any; before the document it makes it none."""
        self._is_over = self._depth == 0
        self._key = None

    def _at_target(self) -> bool:
        if self._wants_key or self._depth != self._watched or self._depth == 0:
            return False
        return self._key == "model"

    def _open(self, mark: bytes) -> None:
        watches = mark == b"{" and (
            self._depth == 0 or (self._depth == 1 == self._watched and self._key in self._parents)
        )
        self._depth += 1
        if watches:
            self._watched = self._depth
            self._wants_key = True
        self._key = None

    def _close(self) -> None:
        self._depth -= 1
        self._watched = min(self._watched, self._depth)
        self._key = None
        self._wants_key = False
        self._is_over = self._depth <= 0

    def _skip(self, data: bytes, pos: int) -> int:
        """Past values that hold no model of ours: up to the next bracket or unfinished string."""
        found = _UNWATCHED.match(data, pos)
        place = found.end() if found else pos
        if place >= len(data):
            return place
        mark = data[place : place + 1]
        if mark == b'"':
            self._in_string = True
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
        if pos >= len(data):
            self._capture(data[begin:], out)
            return pos, self._start_after(pos, start)
        if data[pos] == 0x5C:  # a backslash with nothing behind it yet
            self._escaped = True
            self._capture(data[begin : pos + 1], out)
            return pos + 1, self._start_after(pos + 1, start)
        self._capture(data[begin:pos], out)
        start = self._start_after(pos, start)
        return pos + 1, self._end_string(pos, start, out)

    def _start_after(self, pos: int, start: int) -> int:
        """Where the unheld rest begins: behind what a target has taken, else where it was."""
        return pos if self._is_target else start

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
        self._in_string = False
        if self._is_target:
            self._is_target = False
            overlong, self._overlong = self._overlong, False
            out.append(bytes(self._captured or b"") + b'"' if overlong else self._replacement)
            self._captured = None
            self._key = None
            return pos + 1
        if self._wants_key and self._captured is not None:
            self._key = _decoded_key(bytes(self._captured))
        self._captured = None
        return start


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


@lru_cache(maxsize=256)
def _json_string(text: str) -> bytes:
    try:
        return json.dumps(text, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can only say in ASCII
        return json.dumps(text).encode()


class JsonRestorer:
    """Edits the top-level `model` of a JSON answer."""

    def __init__(self, name: str) -> None:
        self._replacement = _json_string(name)
        self._scanner = _Scanner(name, frozenset())
        self._is_first = True
        # Passed without the scanner's help, which it must read if more comes.
        self._unread = b""

    def feed(self, chunk: bytes) -> bytes:
        """What may leave after this chunk."""
        if self._is_first and chunk:
            self._is_first = False
            if span := _only_model(chunk):
                self._unread = chunk
                return b"".join((chunk[: span[0]], self._replacement, chunk[span[1] :]))
        if self._unread:
            self._scanner.feed(self._unread)
            self._unread = b""
        return self._scanner.feed(chunk)

    def flush(self) -> bytes:
        """What is still held at the end."""
        return self._scanner.take_held()


def _only_model(chunk: bytes) -> tuple[int, int] | None:
    """Where the model's value stands in an answer's first chunk, if it is plain to see: before any nested value, and
    nothing behind it can be such a key.
    """
    found = _LEADING_MODEL.match(chunk)
    if not found or chunk.find(b'"model"', found.end()) >= 0 or b"\\u006" in chunk:
        return None
    return found.span(1)


class SseRestorer:
    """Edits the model in the events of a stream: at the top, in `message` and in `response`."""

    def __init__(self, name: str) -> None:
        self._scanner = _Scanner(name, PARENTS)
        self._field = bytearray()
        self._in_data = False
        self._in_name = True
        self._line_is_empty = True
        self._after_cr = False
        self._is_first_line = True

    def feed(self, chunk: bytes) -> bytes:
        """What may leave after this chunk."""
        if self._is_at_line_start() and not self._scanner.is_inside and _holds_no_model(chunk):
            self._scanner.reset()
            return chunk
        out: list[bytes] = []
        pos, end = 0, len(chunk)
        while pos < end:
            stop = _line_end(chunk, pos)
            if stop > pos:
                out.append(self._piece(chunk[pos:stop]))
                self._after_cr = False
            if stop < end:
                out.append(self._terminator(chunk[stop : stop + 1]))
            pos = stop + 1
        return b"".join(out)

    def flush(self) -> bytes:
        """What is still held at the end."""
        return self._scanner.take_held()

    def _is_at_line_start(self) -> bool:
        return self._line_is_empty and not self._after_cr and not self._is_first_line

    def _piece(self, piece: bytes) -> bytes:
        """Part of a line: of a field's name, of data, or of something that is left alone."""
        self._line_is_empty = False
        if self._in_data:
            return self._scanner.feed(piece)
        if not self._in_name:
            return piece
        name, colon, rest = piece.partition(b":")
        if len(self._field) <= 8:
            self._field += name[:16]
        if not colon:
            return piece
        self._in_name = False
        field = bytes(self._field)
        if self._is_first_line:
            field = field.removeprefix(b"\xef\xbb\xbf")
        self._in_data = field == b"data"
        return name + colon + (self._scanner.feed(rest) if self._in_data else rest)

    def _terminator(self, mark: bytes) -> bytes:
        if mark == b"\n" and self._after_cr:  # the second half of CR LF
            self._after_cr = False
            return mark
        self._after_cr = mark == b"\r"
        held = self._scanner.take_held_at_line_end() if self._in_data else b""
        if self._line_is_empty:
            self._scanner.reset()
        self._field.clear()
        self._in_data = self._is_first_line = False
        self._in_name = self._line_is_empty = True
        return held + mark


def _line_end(chunk: bytes, pos: int) -> int:
    found = _LINE_END.search(chunk, pos)
    return found.start() if found else len(chunk)


def _holds_no_model(chunk: bytes) -> bool:
    """Whether a chunk is whole events in which no key can be `model`, not even one with escapes."""
    return (
        chunk.endswith(b"\n\n") and b'"model"' not in chunk and b"\\u006" not in chunk and b"\r" not in chunk
    )
