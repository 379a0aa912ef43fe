"""The entries of a HAR file, cut out one at a time, so that a large file is never in memory as a whole."""

import re
from collections.abc import Iterator
from typing import IO

_PIECE = 1 << 20
_MARK = re.compile(rb'["{}\[\]]')
_REST_OF_STRING = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
# `log` is an object in an object, and `entries` an array in that.
_LOG, _ENTRIES = 2, 3
_MAX_NAME = 64
# A body is one string. Python needs a microsecond for each mark, and up to 64 bytes for what it begins.
MAX_MARKS, _MAX_DEPTH = 4_000_000, 500


class NotHarError(ValueError):
    """A text that is not a HAR file, or cut off; the message says which."""


def entries(file: IO[bytes], limit: int) -> Iterator[bytes | None]:
    """Yield the JSON text of each entry; None for one of more than `limit` bytes. Raises NotHarError."""
    splitter = _Splitter(limit)
    while piece := file.read(_PIECE):
        yield from splitter.feed(piece)
    if not splitter.has_entries:
        raise NotHarError('the JSON has no "log" with "entries" (`mitm-gateway stats` reads a gateway_log)')
    if splitter.depth:
        raise NotHarError("cut off inside the HAR file")


class _Splitter:
    """A finder of the objects in `log.entries`; it keeps a string or an object that the next piece continues."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._text = bytearray()
        self._at = 0
        self._start: int | None = None
        self._is_too_long = self._is_in_string = False
        self._string_start = 0
        self._name = b""
        self._is_in_entries = self.has_entries = False
        self._marks = 0
        self.depth = 0

    def feed(self, piece: bytes) -> Iterator[bytes | None]:
        """Yield the entries that this piece completes."""
        self._text += piece
        while self._at < len(self._text):
            if self._is_in_string:
                if not self._pass_string():
                    break
                continue
            mark = _MARK.search(self._text, self._at)
            if mark is None:
                self._at = len(self._text)
                break
            self._at = mark.end()
            if (entry := self._take(mark[0], mark.start())) is not None:
                yield entry or None
        self._forget()

    def _pass_string(self) -> bool:
        """Pass the string that has begun; return False if it continues in the next piece."""
        found = _REST_OF_STRING.match(self._text, self._at)
        assert found is not None
        self._at = found.end()
        if self._text[self._at : self._at + 1] != b'"':
            return False
        if self.depth == _LOG:
            self._name = bytes(self._text[self._string_start : min(self._at, self._string_start + _MAX_NAME)])
        self._at += 1
        self._is_in_string = False
        return True

    def _take(self, mark: bytes, at: int) -> bytes | None:
        """Note a mark; return the entry that it ends, which is empty where it was too long. Raises NotHarError."""
        self._marks += 1
        if self._marks > MAX_MARKS:
            raise NotHarError("millions of values in one entry, or before the entries")
        if not 0 <= self.depth <= _MAX_DEPTH:
            raise NotHarError(f"brackets that do not match, or more than {_MAX_DEPTH} of them nested")
        if mark == b'"':
            self._is_in_string, self._string_start = True, self._at
            return None
        if mark in b"{[":
            if mark == b"[" and self.depth == _LOG and self._name == b"entries":
                self._is_in_entries = self.has_entries = True
            elif self._is_in_entries and self.depth == _ENTRIES and mark == b"{":
                self._start, self._is_too_long = at, False
            self.depth += 1
            return None
        self.depth -= 1
        if self._is_in_entries and self.depth == _LOG:
            self._is_in_entries = False
        if self.depth != _ENTRIES or self._start is None:
            return None
        entry = b"" if self._is_too_long else bytes(self._text[self._start : self._at])
        self._start, self._marks = None, 0
        return entry

    def _forget(self) -> None:
        """Drop the bytes that have been read, except an open entry and an open string at the top."""
        if self._start is not None and self._at - self._start > self._limit:
            self._is_too_long = True
        kept = self._at
        if self._start is not None and not self._is_too_long:
            kept = self._start
        elif self._is_in_string and self._at - self._string_start <= _MAX_NAME:
            kept = self._string_start
        del self._text[:kept]
        self._at -= kept
        self._string_start -= kept
        self._start = None if self._start is None else max(self._start - kept, 0)
