"""A body as plain data, read in bounded time: JSON, event streams and Bedrock's frames.

It may be complete, still running, cut off, damaged or hostile; a note describes each omission.
"""

# 10 MB must take at most 200 ms, hence no incremental reader: `sse.EventReader` and a `json.loads` for each event take
# four times as long as one regular expression and one `json.loads` for many. A stream is read from its beginning until
# the time is up, and then at its end.

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, TypeAlias

from ..text.bounded_json import TooManyValuesError, parsed, readable_part
from ..text.printable import size
from ..wire import aws_eventstream
from . import bedrock_converse, gemini
from .body_kind import kind_of
from .stream_assembly import Assembly

# CPU time for the beginning of a stream, and the size of its end, which is always read.
READ_S = 0.08
EVENTS_TAIL, FRAMES_TAIL, MAX_FRAMES = 1 << 18, 1 << 16, 100_000
# The part shown of a body that is not JSON.
MAX_PLAIN = 16_000
# A stream with more damaged events than this is not read any further.
MAX_DAMAGED = 50
# The least and the most to read between two looks at the clock.
_PIECE, _MAX_PIECE = 1 << 16, 2 << 20
_FRAMES_BETWEEN = 50
_DATA = re.compile(rb"^data:[ ]?(.*(?:\n.+)*)", re.MULTILINE)

Now: TypeAlias = Callable[[], float]


def read(data: bytes, content_type: str, notes: list[str], now: Now) -> Any:
    """Return the body's data; for a stream, the response that its events assemble. `now` is a clock of CPU time."""
    match kind_of(content_type, data[:64], is_whole=True):
        case "aws_eventstream":
            return _streamed(_frame_events(data, notes, now), notes)
        case "sse":
            return _streamed(_events(data, notes, now), notes)
    body = _json(data, notes)
    # Gemini streams an array of chunks to clients that do not ask for events.
    if isinstance(body, list) and body and isinstance(body[0], dict) and gemini.is_chunk(body[0]):
        return _streamed([body], notes)
    return body


def _json(data: bytes, notes: list[str]) -> Any:
    if not data.strip():
        notes.append("the body is empty")
        return None
    try:
        return parsed(data)
    except RecursionError:
        notes.append("nested too deep to be shown")
        return None
    except TooManyValuesError:
        fault = "has too many values to show in full; this is the beginning"
    except ValueError:
        fault = "is cut off or damaged; this is the readable part"
    readable = readable_part(data)
    if readable is None:
        notes.append("the body is not JSON")
        return data[:MAX_PLAIN].decode("utf-8", "replace")
    notes.append(f"the JSON of {size(len(data))} {fault}")
    return readable


def _streamed(batches: Iterable[list[Any]], notes: list[str]) -> Any:
    assembly = Assembly()
    for batch in batches:
        assembly.add(batch)
    response, is_complete = assembly.response()
    if not is_complete:
        notes.append("the stream has not ended" if response else "no conversation event so far")
    if len(notes) > MAX_DAMAGED:
        notes.insert(0, "too many events are damaged; the rest of the stream is not read")
    if len(notes) > 5:
        notes[4:] = [f"{len(notes) - 4} more notes"]
    return response


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
        notes.append(f"{size(tail - at)} in the middle of the stream are omitted")
    yield _events_of(stream[tail:], notes)
    yield _events_of(last, notes, is_open=True)


def _end_of_piece(stream: bytes, at: int, end: int) -> int:
    """Return the end of a piece of complete events; an endless event is cut."""
    found = stream.find(b"\n\n", min(at + _PIECE, end), min(at + _MAX_PIECE, end))
    return found + 2 if found >= 0 else min(at + _MAX_PIECE, end)


def _events_of(stream: bytes, notes: list[str], *, is_open: bool = False) -> list[Any]:
    """Return the events in a part of a stream; if it is open, the last one may still grow."""
    texts = [text for text in event_data(stream) if text and text != b"[DONE]"]
    try:
        events: list[Any] = parsed(b"[" + b",".join(texts) + b"]")
    except (ValueError, RecursionError):
        fault = "is still arriving" if is_open else "is cut off or damaged"
        events = [event for text in texts if (event := _event(text, notes, fault)) is not None]
    return events


def event_data(stream: bytes) -> list[bytes]:
    """Return the data of each event, including one that is cut off."""
    found = _DATA.findall(_with_plain_line_ends(stream))
    return [_joined(text) if b"\n" in text else text for text in found]


def _with_plain_line_ends(stream: bytes) -> bytes:
    return stream.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in stream else stream


def _joined(text: bytes) -> bytes:
    """Return the data of an event with several lines."""
    first, *lines = text.split(b"\n")
    data = [line[5:].removeprefix(b" ") for line in lines if line.startswith(b"data:")]
    return b"\n".join([first, *data])


def _event(text: bytes, notes: list[str], fault: str) -> Any:
    if len(notes) > MAX_DAMAGED:
        return None
    try:
        return parsed(text)
    except TooManyValuesError:
        notes.append(f"an event of {size(len(text))} has too many values to show in full")
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
        notes.append(f"{skipped} in the middle of the stream are omitted")
    yield _events_in(data, spans[tail:], notes)
    if end < len(data):
        rest = size(len(data) - end)
        is_cut = len(spans) == MAX_FRAMES
        notes.append(f"{rest} more are omitted" if is_cut else f"the last {rest} are not a complete frame")


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
