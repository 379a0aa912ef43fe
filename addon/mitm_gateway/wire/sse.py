"""A reader of server-sent events from chunks (https://html.spec.whatwg.org/#event-stream-interpretation)."""

import re
from dataclasses import dataclass

MAX_LINE_BYTES = 1 << 20
_LINE_END = re.compile(rb"\r\n|\n|\r")
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Event:
    """One event; its data is cut at the limit and at the end of the stream."""

    name: str
    data: bytes


class EventReader:
    """A reader of events as they become complete; `limit` bounds the data of one event, in bytes."""

    def __init__(self, limit: int = MAX_LINE_BYTES) -> None:
        self._limit = limit
        self._line = bytearray()
        self._skips_newline = False
        self._is_first_line = True
        self._begin_event()

    def _begin_event(self) -> None:
        self._name = b""
        self._data: list[bytes] = []
        self._size = 0

    def feed(self, chunk: bytes) -> list[Event]:
        """Return the events that this chunk completes."""
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
        """True if the next byte begins an event; also false before the first byte."""
        return not (self._line or self._data or self._name or self._skips_newline or self._is_first_line)

    def finish(self) -> list[Event]:
        """Return the event in which the stream was cut off, if there is one."""
        if self._line:
            self._end_line()
        return [self._event()] if self._data else []

    def _add(self, piece: bytes) -> None:
        room = self._limit + 16 - len(self._line)
        self._line += piece[: max(room, 0)]

    def _end_line(self) -> Event | None:
        line = bytes(self._line)
        self._line.clear()
        if self._is_first_line:
            self._is_first_line = False
            line = line.removeprefix(_BOM)
        if not line:
            event = self._event() if self._data else None
            self._begin_event()
            return event
        field, _, value = line.partition(b":")
        if field == b"data":
            self._add_data(value.removeprefix(b" "))
        elif field == b"event":
            self._name = value.removeprefix(b" ")
        return None

    def _add_data(self, value: bytes) -> None:
        value = value[: max(self._limit - self._size, 0)]
        self._size += len(value) + 1
        if self._size <= self._limit + 1 or not self._data:
            self._data.append(value)

    def _event(self) -> Event:
        return Event(self._name.decode("utf-8", "replace"), b"\n".join(self._data))
