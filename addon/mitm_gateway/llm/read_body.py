"""A body as plain data, as far as it can be read in a moment: JSON, event streams and Bedrock's frames.

They may be whole, still running, cut off, damaged or hostile: what is left out becomes a note.
"""

# Speed is a promise (10 MB in 200 ms), hence no incremental reader: `sse.EventReader` and a `json.loads` for each
# event take four times as long as one regular expression and one `json.loads` for many. A stream is read from its
# beginning until the time is up, and then at its end.

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, TypeAlias

from ..text.bounded_json import TooManyValuesError, parsed, readable_part
from ..text.printable import size
from ..wire import aws_eventstream
from . import bedrock_converse
from .stream_assembly import Assembly

# CPU time for the beginning of a stream, and how long its end is, which is read in any case.
READ_S = 0.08
EVENTS_TAIL, FRAMES_TAIL, MAX_FRAMES = 1 << 18, 1 << 16, 100_000
# Of a body that is no JSON, its beginning.
MAX_PLAIN = 16_000
# A stream with more events than this that are damaged is none.
MAX_DAMAGED = 50
# How much is read between two looks at the clock, at least and at most.
_PIECE, _MAX_PIECE = 1 << 16, 2 << 20
_FRAMES_BETWEEN = 50
_DATA = re.compile(rb"^data:[ ]?(.*(?:\n.+)*)", re.MULTILINE)

Now: TypeAlias = Callable[[], float]


def read(data: bytes, kind: str, notes: list[str], now: Now) -> Any:
    """The body of this media type; for a stream the answer that its events make. `now` is a clock of CPU time."""
    if kind == aws_eventstream.CONTENT_TYPE:
        return _streamed(_frame_events(data, notes, now), notes)
    if kind == "text/event-stream" or data.lstrip()[:6] in (b"event:", b"data: "):
        return _streamed(_events(data, notes, now), notes)
    return _json(data, notes)


def _json(data: bytes, notes: list[str]) -> Any:
    if not data.strip():
        notes.append("there is no body")
        return None
    try:
        return parsed(data)
    except RecursionError:
        notes.append("nested too deep to be shown")
        return None
    except TooManyValuesError:
        fault = "has too many values to be shown whole; this is its beginning"
    except ValueError:
        fault = "is cut off or damaged; this is what can be read of it"
    readable = readable_part(data)
    if readable is None:
        notes.append("this is not JSON")
        return data[:MAX_PLAIN].decode("utf-8", "replace")
    notes.append(f"the JSON of {size(len(data))} {fault}")
    return readable


def _streamed(batches: Iterable[list[Any]], notes: list[str]) -> Any:
    assembly = Assembly()
    for batch in batches:
        assembly.add(batch)
    answer, is_complete = assembly.answer()
    if not is_complete:
        notes.append("the stream has not ended" if answer else "no event of a conversation so far")
    if len(notes) > MAX_DAMAGED:
        notes.insert(0, "too much of the stream is damaged; the rest is not read")
    if len(notes) > 5:
        notes[4:] = [f"and {len(notes) - 4} notes more"]
    return answer


# ---- event streams ----


def _events(data: bytes, notes: list[str], now: Now) -> Iterator[list[Any]]:
    stream = _with_plain_line_ends(data)
    whole = stream.rfind(b"\n\n") + 2 if b"\n\n" in stream else 0
    stream, last = stream[:whole], stream[whole : whole + _MAX_PIECE]
    tail = stream.find(b"\n\n", max(len(stream) - EVENTS_TAIL, 0))
    tail = tail if tail >= 0 and len(stream) > EVENTS_TAIL else len(stream)
    at, end = 0, now() + READ_S
    while at < tail and now() < end:
        following = _end_of_piece(stream, at, tail)
        yield _events_of(stream[at:following], notes)
        at = following
        if len(notes) > MAX_DAMAGED:
            return
    if at < tail:
        notes.append(f"{size(tail - at)} in the middle of the stream are not shown")
    yield _events_of(stream[tail:], notes)
    yield _events_of(last, notes, is_open=True)


def _end_of_piece(stream: bytes, at: int, end: int) -> int:
    """Where a piece of whole events ends; one that is endless is cut."""
    found = stream.find(b"\n\n", min(at + _PIECE, end), min(at + _MAX_PIECE, end))
    return found + 2 if found >= 0 else min(at + _MAX_PIECE, end)


def _events_of(stream: bytes, notes: list[str], *, is_open: bool = False) -> list[Any]:
    """The events in a part of a stream; one that is open may still grow."""
    texts = [text for text in event_data(stream) if text and text != b"[DONE]"]
    try:
        events: list[Any] = parsed(b"[" + b",".join(texts) + b"]")
    except (ValueError, RecursionError):
        fault = "has come in part" if is_open else "is cut off or damaged"
        events = [event for text in texts if (event := _event(text, notes, fault)) is not None]
    return events


def event_data(stream: bytes) -> list[bytes]:
    """The data of each event, the one that is cut off included."""
    found = _DATA.findall(_with_plain_line_ends(stream))
    return [_joined(text) if b"\n" in text else text for text in found]


def _with_plain_line_ends(stream: bytes) -> bytes:
    return stream.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in stream else stream


def _joined(text: bytes) -> bytes:
    """The data of an event with several lines, from the first line of data on."""
    first, *lines = text.split(b"\n")
    data = [line[5:].removeprefix(b" ") for line in lines if line.startswith(b"data:")]
    return b"\n".join([first, *data])


def _event(text: bytes, notes: list[str], fault: str) -> Any:
    if len(notes) > MAX_DAMAGED:
        return None
    try:
        return parsed(text)
    except TooManyValuesError:
        notes.append(f"an event of {size(len(text))} has too many values to be shown whole")
    except (ValueError, RecursionError):
        notes.append(f"an event of {size(len(text))} {fault}")
    return readable_part(text)


# ---- frames ----


def _frame_events(data: bytes, notes: list[str], now: Now) -> Iterator[list[Any]]:
    deadline = now() + READ_S
    spans = list(islice(aws_eventstream.spans(data), MAX_FRAMES))
    end = spans[-1][2] if spans else 0
    tail = next((number for number, span in enumerate(spans) if span[0] >= end - FRAMES_TAIL), 0)
    at = 0
    while at < tail and now() < deadline and len(notes) <= MAX_DAMAGED:
        yield _events_in(data, spans[at : min(at + _FRAMES_BETWEEN, tail)], notes)
        at = min(at + _FRAMES_BETWEEN, tail)
    if len(notes) > MAX_DAMAGED:
        return
    if at < tail:
        skipped = size(spans[tail][0] - spans[at][0])
        notes.append(f"{skipped} in the middle of the stream are not shown")
    yield _events_in(data, spans[tail:], notes)
    if end < len(data):
        rest = size(len(data) - end)
        is_cut = len(spans) == MAX_FRAMES
        notes.append(f"{rest} more are not shown" if is_cut else f"{rest} at the end are no complete frame")


def _events_in(data: bytes, spans: Sequence[aws_eventstream.Span], notes: list[str]) -> list[Any]:
    found: list[Any] = []
    for span in spans:
        if len(notes) > MAX_DAMAGED:
            break
        frame = aws_eventstream.frame_at(data, span)
        try:
            found += bedrock_converse.events(aws_eventstream.event(frame))
        except (ValueError, RecursionError):
            notes.append(f"a frame of {size(len(frame.payload))} is damaged or has too many values")
    return found
