"""A reader of server-sent events from chunks (https://html.spec.whatwg.org/#event-stream-interpretation)."""

import re

MAX_LINE_BYTES = 1 << 20
_LINE_END = re.compile(rb"\r\n|\n|\r")
_BOM = b"\xef\xbb\xbf"


class EventReader:
    """A reader of the events' data, which is cut at the limit and at the end of the stream."""

    def __init__(self, limit: int = MAX_LINE_BYTES) -> None:
        self._limit = limit
        self._line = bytearray()
        self._data: list[bytes] = []
        self._size = 0
        self._skips_newline = False
        self._is_first_line = True

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the data of the events that this chunk completes."""
        if self._skips_newline and chunk:
            self._skips_newline = False
            chunk = chunk.removeprefix(b"\n")
        events: list[bytes] = []
        pos = 0
        for end in _LINE_END.finditer(chunk):
            self._add(chunk[pos : end.start()])
            pos = end.end()
            self._skips_newline = end[0] == b"\r" and pos == len(chunk)
            events += self._end_line()
        self._add(chunk[pos:])
        return events

    @property
    def is_between_events(self) -> bool:
        """True if the next byte begins a line, and no data precedes it; also false before the first byte."""
        return not (self._line or self._data or self._skips_newline or self._is_first_line)

    def finish(self) -> list[bytes]:
        """Return the data of the event in which the stream was cut off, if there is one."""
        return [*(self._end_line() if self._line else ()), *self._end_event()]

    def _add(self, piece: bytes) -> None:
        room = self._limit + 16 - len(self._line)
        self._line += piece[: max(room, 0)]

    def _end_line(self) -> list[bytes]:
        line = bytes(self._line)
        self._line.clear()
        if self._is_first_line:
            self._is_first_line = False
            line = line.removeprefix(_BOM)
        if not line:
            return self._end_event()
        field, _, value = line.partition(b":")
        if field == b"data":
            self._add_data(value.removeprefix(b" "))
        return []

    def _add_data(self, value: bytes) -> None:
        value = value[: max(self._limit - self._size, 0)]
        self._size += len(value) + 1
        if self._size <= self._limit + 1 or not self._data:
            self._data.append(value)

    def _end_event(self) -> list[bytes]:
        events = [b"\n".join(self._data)] if self._data else []
        self._data, self._size = [], 0
        return events
