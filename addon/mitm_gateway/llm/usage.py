"""Model, token counts and stop reason of a response, from its events or its whole JSON.

Upstreams are not trusted: impossible counts and malformed names are ignored.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import reduce
from itertools import islice
from typing import Any, NamedTuple, Protocol, TypeAlias

from ..text.bounded_json import is_overgrown
from ..wire import aws_eventstream
from ..wire.sse import EventReader
from . import bedrock_converse
from .apis import STOP_REASONS, TOKENS, Tokens
from .body_kind import BodyKind, kind_of

# A longer response is not parsed for its usage, nor is anything behind a longer frame.
MAX_JSON_BYTES = 8 << 20
MAX_FRAME_BYTES = 1 << 20
_MAX_UNDECIDED = 64
# Of a complete stream, the beginning and the end are read, which report everything; in the middle there may be millions
# of events. Of a list of chunks, the last ones. Frames have to be passed one by one, in 0.8 µs each.
_HEAD_BYTES, _TAIL_BYTES, _MAX_CHUNKS, _MAX_FRAMES = 64 << 10, 128 << 10, 10_000, 50_000
# Far beyond any model's context.
MAX_TOKENS = 1_000_000_000
# The names that APIs give to errors and stop reasons, and model names (ARNs included).
_NAME = re.compile(r"[\w.:-]{1,64}", re.ASCII)
_MODEL = re.compile(r"[\w.:/@+ \[\]()-]{1,256}", re.ASCII)
# An event without one of these keys has nothing to report.
_KEYS = (
    "usage", "usageMetadata", "model", "modelVersion", "stop_reason", "finish_reason", "finishReason", "blockReason",
    "interaction", "error",
)  # fmt: skip
_find_mark = re.compile(b"|".join(f'"{key}"'.encode() for key in _KEYS)).search
# Other tiers, regions and speeds have other prices, and so have tokens of sound.
_STANDARD_TIERS = (None, "standard", "default", "auto", "global", "not_available")
_TIERS = ("speed", "inference_geo", "service_tier")
_DETAILS = frozenset(
    {"prompt_tokens_details", "completion_tokens_details", "input_tokens_details", "output_tokens_details",
     "input_token_details", "output_token_details"}
)  # fmt: skip
_MODALITIES = ("promptTokensDetails", "candidatesTokensDetails", "responseTokensDetails")
# A part without these keys, whose usage has none of those, was served in the standard tier.
_OWN_TIER, _OF_TIER = frozenset({"service_tier", "usageMetadata"}), _DETAILS.union(_TIERS)
# The kinds of objects that have a status: of the Responses, Interactions and Assistants APIs.
WITH_STATUS = ("response", "interaction", "thread.run")
# The status of one that is not finished.
UNFINISHED = ("in_progress", "queued")


class Usage(NamedTuple):
    """Token counts, model and stop reason of a response; None if the API does not report them."""

    model: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_tokens: int | None = None
    cache_creation_tokens: int | None = None
    stop_reason: str | None = None
    error: str | None = None
    is_stream: bool = False
    """True if the response arrived as events."""
    cache_creation_long_tokens: int | None = None
    """The part of the tokens written to the cache that stays longer: an hour at Anthropic, twelve at OpenAI."""
    service_tier: str | None = None

    @property
    def special_tier(self) -> str | None:
        """The tier if its prices differ from those of the standard one."""
        return None if self.service_tier in _STANDARD_TIERS else self.service_tier

    def updated(self, data: object) -> Usage:
        """Return the usage with the additions of an event or a response; malformed parts are ignored."""
        if isinstance(data, list):  # Gemini streams an array of chunks to clients that do not ask for events
            return reduce(Usage.updated, data[-_MAX_CHUNKS:], self)
        if not isinstance(data, dict):
            return self
        found: dict[str, Any] = {}
        parts = (data, data.get("message"), data.get("response"), data.get("delta"), _interaction(data))
        for part in parts:
            if isinstance(part, dict):
                _collect(part, found)
        return self._replace(**found) if found else self


def _interaction(event: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the interaction in an event of Gemini's Interactions API, which may leave out its kind."""
    interaction = event.get("interaction")
    return {"object": "interaction", **interaction} if isinstance(interaction, dict) else None


def _collect(part: Mapping[str, Any], found: dict[str, Any]) -> None:
    """Add the findings in a part to `found`."""
    if model := _text(part.get("model", part.get("modelVersion")), _MODEL):
        found["model"] = model
    if reason := _stop_reason(part):
        found["stop_reason"] = reason
    if error := _error(part.get("error")) or _error_event(part):
        found["error"] = error
    if tier := _tier(part):
        found["service_tier"] = tier
    for within, names in reversed(PLACES_OF_COUNTS.items()):
        counts = part.get(within)
        if isinstance(counts, dict):
            found.update(_tokens(counts, names))


def counts_in(usage: Mapping[str, Any]) -> Usage:
    """Return the token counts in an object of any API."""
    return Usage().updated(dict.fromkeys(PLACES_OF_COUNTS, usage))


# A place below an object: its first step, and the others.
_Place: TypeAlias = tuple[str, tuple[str | int, ...]]
# The places of one count in the APIs; the values at the places of one API are added up.
Count: TypeAlias = tuple[tuple[_Place, ...], ...]


def _place(steps: Sequence[Any]) -> _Place:
    return steps[0], tuple(steps[1:])


def _places_of_counts(apis: Iterable[Tokens]) -> dict[str, dict[str, Count]]:
    """Return the places of each count, by the object that they are in."""
    found: dict[str, dict[str, Count]] = {}
    for names in apis:
        places = {
            "input_tokens": names.input,
            "output_tokens": names.output,
            "cache_read_tokens": (names.cache_read,),
            "cache_creation_tokens": (names.cache_creation,) if names.cache_creation else (),
            "cache_creation_long_tokens": (names.cache_creation_long,) if names.cache_creation_long else (),
        }
        counts = found.setdefault(names.within, {})
        for count, summed in places.items():
            one = tuple(_place(name.split(".")) for name in summed)
            if one and one not in (others := counts.get(count, ())):
                counts[count] = (*others, one)
    return found


PLACES_OF_COUNTS = _places_of_counts(TOKENS)
_STOP_REASONS = tuple(map(_place, STOP_REASONS))


def _tokens(counts: Mapping[str, Any], names: Mapping[str, Count]) -> Iterator[tuple[str, int]]:
    for count, apis in names.items():
        for places in apis:
            numbers = [
                number
                for first, rest in places
                if first in counts and (number := _number(_at(counts[first], rest))) is not None
            ]
            # A gateway may report one count under two names; the first valid one is used.
            if numbers:
                yield count, sum(numbers)
                break


def _tier(part: Mapping[str, Any]) -> str | None:
    """Return the tier in which a response was served; of several, the one with special prices."""
    usage = part.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    if _OWN_TIER.isdisjoint(part) and _OF_TIER.isdisjoint(usage):
        return None
    if _has_sound(part, usage):
        return "audio"
    named = [usage[name] for name in _TIERS if name in usage] + [part.get("service_tier")]
    tiers = [tier for each in named if each is not None and (tier := _name(each))]
    special = [tier for tier in tiers if tier not in _STANDARD_TIERS]
    return next(iter(special or tiers), None)


def _has_sound(part: Mapping[str, Any], usage: Mapping[str, Any]) -> bool:
    counts = [_number(_at(usage[name], ("audio_tokens",))) for name in _DETAILS.intersection(usage)]
    lists = [_at(part.get("usageMetadata"), (name,)) for name in _MODALITIES]
    kinds = [_at(each, ("modality",)) for found in lists if isinstance(found, list) for each in found]
    return any(counts) or "AUDIO" in kinds


def _at(value: Any, place: Iterable[str | int]) -> Any:
    """Return the value at a place, or None."""
    for step in place:
        if isinstance(step, str):
            value = value.get(step) if isinstance(value, dict) else None
        else:
            value = value[step] if isinstance(value, list) and len(value) > step else None
    return value


def _number(value: object) -> int | None:
    if not isinstance(value, int) or isinstance(value, bool):
        return None
    return value if 0 <= value <= MAX_TOKENS else None


def _text(value: object, form: re.Pattern[str]) -> str | None:
    return value if isinstance(value, str) and form.fullmatch(value) else None


def _name(value: object) -> str | None:
    return _text(value, _NAME)


def _stop_reason(part: Mapping[str, Any]) -> str | None:
    for first, rest in _STOP_REASONS:
        if first in part and (reason := _name(_at(part[first], rest))):
            return reason
    # Its status, or the reason if it is incomplete.
    if part.get("object") not in WITH_STATUS or part.get("status") in UNFINISHED:
        return None
    return _name(_at(part, ("incomplete_details", "reason"))) or _name(part.get("status"))


def _error(value: object) -> str | None:
    if not isinstance(value, dict):
        return None
    names = (_name(value.get("type")), _name(value.get("code")), _name(value.get("status")))
    return next(filter(None, names), None) or _numbered(value.get("code"))


def _error_event(part: Mapping[str, Any]) -> str | None:
    """Return the error of an event of the Responses API."""
    code = part.get("code")
    return _name(code) or _numbered(code) if part.get("type") == "error" else None


def _numbered(code: object) -> str:
    """Return the type of an error that has no name, such as `error_429`."""
    is_status = type(code) is int and 100 <= code <= 999
    return f"error_{code}" if is_status else "error"


class UsageReader(Protocol):
    """A reader of a response as it passes; never raises on malformed data."""

    def feed(self, chunk: bytes) -> None:
        """Read the next bytes."""

    def finish(self) -> Usage:
        """Return the usage; call once, at the end."""


def reader_for(content_type: str) -> UsageReader:
    """Return the reader for a response of this Content-Type; the first bytes may correct it."""
    return _AutoUsage(content_type)


def usage_in(content_type: str, body: bytes) -> Usage:
    """Return the usage that a complete response reports."""
    if len(body) > _HEAD_BYTES + _TAIL_BYTES:
        match kind_of(content_type, body[:_MAX_UNDECIDED], is_whole=True):
            case "sse":
                body = _without_middle(body)
            case "aws_eventstream":
                body = _without_middle_frames(body)
    reader = reader_for(content_type)
    reader.feed(body)
    return reader.finish()


def _without_middle(stream: bytes) -> bytes:
    """Return the first events of a stream and its last ones; the very last one, which may be large, is whole."""
    start, last = len(stream) - _TAIL_BYTES, stream.rfind(b"\n\n", 0, -2) + 2
    tail = stream[last:] if 2 <= last < start else stream[start:].partition(b"\n")[2]
    return stream[:_HEAD_BYTES] + b"\n\n" + tail


def _without_middle_frames(stream: bytes) -> bytes:
    """Return the first frames of a stream and its last ones; of millions of frames, only the first ones."""
    starts = [start for start, *_ in islice(aws_eventstream.spans(stream), _MAX_FRAMES)] or [0]
    first = bisect_left(starts, _HEAD_BYTES, hi=len(starts) - 1)
    if len(starts) == _MAX_FRAMES:
        return stream[: starts[first]]
    last = bisect_left(starts, len(stream) - _TAIL_BYTES, lo=first, hi=len(starts) - 1)
    return stream[: starts[first]] + stream[starts[last] :]


class _AutoUsage:
    """A reader that waits for the first bytes, which identify the kind of the response."""

    def __init__(self, content_type: str) -> None:
        self._content_type = content_type
        self._start = b""
        self._reader: UsageReader | None = None

    def feed(self, chunk: bytes) -> None:
        if self._reader is not None:
            self._reader.feed(chunk)
            return
        if not self._start:  # a small response is in one piece, and is read at its end
            self._start = chunk
            return
        self._start += chunk
        if kind := kind_of(self._content_type, self._start, is_whole=len(self._start) > _MAX_UNDECIDED):
            self._decide(kind)

    def finish(self) -> Usage:
        if self._reader is None:
            self._decide(kind_of(self._content_type, self._start, is_whole=True) or "other")
        assert self._reader
        return self._reader.finish()

    def _decide(self, kind: BodyKind) -> None:
        self._reader = _READERS.get(kind, _JsonUsage)()
        self._reader.feed(self._start)
        self._start = b""


class _EventUsage:
    def __init__(self) -> None:
        self._events = EventReader()
        self._usage = Usage(is_stream=True)

    def feed(self, chunk: bytes) -> None:
        # Most chunks of a stream are whole events that report nothing.
        if self._events.is_between_events and chunk.endswith(b"\n\n") and not _find_mark(chunk):
            return
        for event in self._events.feed(chunk):
            self._take(event)

    def finish(self) -> Usage:
        for event in self._events.finish():
            self._take(event)
        return self._usage

    def _take(self, data: bytes) -> None:
        if _find_mark(data):
            self._usage = self._usage.updated(read_json(data))


class _FrameUsage:
    """A reader of Bedrock's binary event stream, of InvokeModel and of Converse."""

    def __init__(self) -> None:
        self._rest = bytearray()
        self._is_lost = False
        self._usage = Usage(is_stream=True)

    def feed(self, chunk: bytes) -> None:
        if self._is_lost:
            return
        self._rest += chunk
        found, size = aws_eventstream.frames(self._rest)
        del self._rest[: len(self._rest) - size]
        for frame in found:
            self._take(frame)
        # The beginning of the next frame is unknown.
        self._is_lost = size > MAX_FRAME_BYTES
        if self._is_lost:
            self._rest.clear()

    def finish(self) -> Usage:
        return self._usage

    def _take(self, frame: aws_eventstream.Frame) -> None:
        try:
            events = bedrock_converse.events(aws_eventstream.event(frame))
        except (ValueError, RecursionError):
            return
        for event in events:
            self._usage = self._usage.updated(event)


class _JsonUsage:
    def __init__(self) -> None:
        self._body = bytearray()
        self._is_too_long = False

    def feed(self, chunk: bytes) -> None:
        if self._is_too_long or len(self._body) + len(chunk) > MAX_JSON_BYTES:
            self._is_too_long = True
            self._body.clear()
        else:
            self._body += chunk

    def finish(self) -> Usage:
        answer = read_json(bytes(self._body))
        return Usage().updated(bedrock_converse.body(answer) if isinstance(answer, dict) else answer)


_READERS: dict[BodyKind, Callable[[], UsageReader]] = {"sse": _EventUsage, "aws_eventstream": _FrameUsage}


def read_json(data: bytes) -> object:
    """Return the value of a JSON text; None if it is invalid or has too many values."""
    try:
        return None if is_overgrown(data) else json.loads(data)
    except (ValueError, RecursionError):
        return None
