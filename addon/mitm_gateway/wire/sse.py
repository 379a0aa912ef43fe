"""Server-sent events from bytes, however these are cut (https://html.spec.whatwg.org/#event-stream-interpretation)."""

from __future__ import annotations

import re
from dataclasses import dataclass

DEFAULT_LIMIT = 1 << 20
_LINE_END = re.compile(rb"\r\n|\n|\r")
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Event:
    """One event; `truncated` where its data is longer than the limit, or the stream ended inside it."""

    name: str
    data: bytes
    truncated: bool = False


class EventReader:
    """Gives the events of a stream as they become complete; `limit` bounds the data of one, in bytes."""

    def __init__(self, limit: int = DEFAULT_LIMIT) -> None:
        self._limit = limit
        self._line = bytearray()
        self._line_is_cut = False
        self._skips_newline = False
        self._is_first_line = True
        self._begin_event()

    def _begin_event(self) -> None:
        self._name = b""
        self._data: list[bytes] = []
        self._size = 0
        self._is_truncated = False

    def feed(self, chunk: bytes) -> list[Event]:
        """The events that this chunk completes."""
        if self._skips_newline and chunk:
            self._skips_newline = False
            chunk = chunk.removeprefix(b"\n")
        events: list[Event] = []
        pos = 0
        for end in _LINE_END.finditer(chunk):
            self._add(chunk[pos : end.start()])
            pos = end.end()
            self._skips_newline = end[0] == b"\r" and pos == len(chunk)
            if event := self._end_line():
                events.append(event)
        self._add(chunk[pos:])
        return events

    @property
    def is_between_events(self) -> bool:
        """Whether what comes next begins an event; false as well before the first byte."""
        return not (self._line or self._data or self._name or self._skips_newline or self._is_first_line)

    def finish(self) -> list[Event]:
        """The event in which the stream was cut off, if there is one."""
        if self._line:
            self._end_line()
        if not self._data:
            return []
        self._is_truncated = True
        return [self._event()]

    def _add(self, piece: bytes) -> None:
        room = self._limit + 16 - len(self._line)
        if len(piece) > room:
            self._line_is_cut = True
        self._line += piece[: max(room, 0)]

    def _end_line(self) -> Event | None:
        line, cut = bytes(self._line), self._line_is_cut
        self._line.clear()
        self._line_is_cut = False
        if self._is_first_line:
            self._is_first_line = False
            line = line.removeprefix(_BOM)
        if not line:
            event = self._event() if self._data else None
            self._begin_event()
            return event
        field, _, value = line.partition(b":")
        self._is_truncated |= cut
        if field == b"data":
            self._add_data(value.removeprefix(b" "))
        elif field == b"event":
            self._name = value.removeprefix(b" ")
        return None

    def _add_data(self, value: bytes) -> None:
        room = self._limit - self._size
        if len(value) > room:
            self._is_truncated = True
            value = value[: max(room, 0)]
        self._size += len(value) + 1
        if self._size <= self._limit + 1 or not self._data:
            self._data.append(value)

    def _event(self) -> Event:
        return Event(self._name.decode("utf-8", "replace"), b"\n".join(self._data), self._is_truncated)
