"""The client's model name, put back into a response while it streams; no other byte changes."""

from __future__ import annotations

import re

from .json_scanner import ModelScanner, json_string, leading_model

# Anthropic's `message_start` has the model in `message`, OpenAI's `response.*` events have it in `response`.
PARENTS: frozenset[str] = frozenset({"message", "response"})

# One search for both: a search for each would read the rest of the chunk again for every line.
_LINE_END = re.compile(rb"[\r\n]")
_MAX_FIELD_NAME = 8


class JsonRestorer:
    """Restores the top-level `model` of a JSON response."""

    def __init__(self, name: str) -> None:
        self._replacement = json_string(name)
        self._scanner = ModelScanner(name)
        self._is_first = True
        # Passed without the scanner, which must read it if more follows.
        self._unread = b""

    def feed(self, chunk: bytes) -> bytes:
        """Return what may leave after this chunk."""
        if self._is_first and chunk:
            self._is_first = False
            if span := leading_model(chunk):
                self._unread = chunk
                return b"".join((chunk[: span[0]], self._replacement, chunk[span[1] :]))
        if self._unread:
            self._scanner.feed(self._unread)
            self._unread = b""
        return self._scanner.feed(chunk)

    def flush(self) -> bytes:
        """Return what is still held at the end."""
        return self._scanner.take_held()


class SseRestorer:
    """Restores the model in the events of a stream: at the top, in `message` and in `response`."""

    def __init__(self, name: str) -> None:
        self._scanner = ModelScanner(name, PARENTS)
        self._field = bytearray()
        self._in_data = False
        self._in_name = True
        self._line_is_empty = True
        self._after_cr = False
        self._is_first_line = True

    def feed(self, chunk: bytes) -> bytes:
        """Return what may leave after this chunk."""
        if self._is_at_line_start() and not self._scanner.is_inside and _is_plain(chunk):
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
        """Return what is still held at the end."""
        return self._scanner.take_held()

    def _is_at_line_start(self) -> bool:
        return self._line_is_empty and not self._after_cr and not self._is_first_line

    def _piece(self, piece: bytes) -> bytes:
        """Return what may leave of a part of a line: a field's name, data, or something that stays as it is."""
        self._line_is_empty = False
        if self._in_data:
            return self._scanner.feed(piece)
        if not self._in_name:
            return piece
        name, colon, rest = piece.partition(b":")
        if len(self._field) <= _MAX_FIELD_NAME:
            self._field += name[: 2 * _MAX_FIELD_NAME]
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


def _is_plain(chunk: bytes) -> bool:
    """Report whether a chunk is whole events in which no key can be `model`, not even one with escapes."""
    return (
        chunk.endswith(b"\n\n") and b'"model"' not in chunk and b"\\u006" not in chunk and b"\r" not in chunk
    )
