"""What an answer says of itself: model, tokens, why it stopped; from passing events or whole JSON.

Upstreams are not trusted: a count that cannot be one and a name that is none are passed over.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from ..wire import aws_eventstream
from ..wire.sse import EventReader
from . import bedrock_converse

# An answer longer than this is not parsed for its usage; nor is what lies behind a longer frame.
MAX_JSON_BYTES = 8 << 20
MAX_FRAME_BYTES = 1 << 20
# Far beyond any model's context.
MAX_TOKENS = 1_000_000_000
# What APIs call errors and reasons to stop, and their models (ARNs included).
_NAME = re.compile(r"[\w.:-]{1,64}", re.ASCII)
_MODEL = re.compile(r"[\w.:/@+ \[\]()-]{1,256}", re.ASCII)
# No other event holds what is looked for.
_TELLING = (b'"usage"', b'"model"', b'"stop_reason"', b'"finish_reason"', b'"error"')
# What the Responses API says of an answer that is not finished.
_UNDER_WAY = ("in_progress", "queued")


class Usage(NamedTuple):
    """Tokens as the API reports them; None where it says nothing. `is_stream` where it came as events."""

    model: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_tokens: int | None = None
    cache_creation_tokens: int | None = None
    stop_reason: str | None = None
    error: str | None = None
    is_stream: bool = False

    def updated(self, data: object) -> Usage:
        """The usage with what an event or an answer adds; rubbish adds nothing."""
        if not isinstance(data, dict):
            return self
        found: dict[str, Any] = {}
        for part in (data, data.get("message"), data.get("response"), data.get("delta")):
            if isinstance(part, dict):
                _collect(part, found)
        return self._replace(**found) if found else self


def _collect(part: Mapping[str, Any], found: dict[str, Any]) -> None:
    """Adds to `found` what a part tells."""
    told: dict[str, str | int | None] = {
        "model": _text(part.get("model"), _MODEL),
        "stop_reason": _name(part.get("stop_reason")) or _finish_reason(part) or _status(part),
        "error": _error(part.get("error")) or _error_event(part),
    }
    if isinstance(tokens := part.get("usage"), dict):
        told.update(_tokens(tokens))
    found.update({name: value for name, value in told.items() if value is not None})


def _tokens(tokens: Mapping[str, Any]) -> dict[str, int | None]:
    details = tokens.get("input_tokens_details") or tokens.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else None
    return {
        "input_tokens": _first(tokens, "input_tokens", "prompt_tokens"),
        "output_tokens": _first(tokens, "output_tokens", "completion_tokens"),
        "cache_read_tokens": _number(tokens.get("cache_read_input_tokens") if cached is None else cached),
        "cache_creation_tokens": _number(tokens.get("cache_creation_input_tokens")),
    }


def _first(tokens: Mapping[str, Any], *names: str) -> int | None:
    for name in names:
        if (number := _number(tokens.get(name))) is not None:
            return number
    return None


def _number(value: object) -> int | None:
    if not isinstance(value, int) or isinstance(value, bool):
        return None
    return value if 0 <= value <= MAX_TOKENS else None


def _text(value: object, form: re.Pattern[str]) -> str | None:
    return value if isinstance(value, str) and form.fullmatch(value) else None


def _name(value: object) -> str | None:
    return _text(value, _NAME)


def _finish_reason(part: Mapping[str, Any]) -> str | None:
    choices = part.get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], dict):
        return _name(choices[0].get("finish_reason"))
    return None


def _status(part: Mapping[str, Any]) -> str | None:
    """Why an answer of the Responses API ended: what it lacks, or its status."""
    if part.get("object") != "response" or part.get("status") in _UNDER_WAY:
        return None
    details = part.get("incomplete_details")
    reason = _name(details.get("reason")) if isinstance(details, dict) else None
    return reason or _name(part.get("status"))


def _error(value: object) -> str | None:
    if isinstance(value, dict):
        return _name(value.get("type")) or _name(value.get("code")) or "error"
    return None


def _error_event(part: Mapping[str, Any]) -> str | None:
    """The error that an event of the Responses API is."""
    return _name(part.get("code")) or "error" if part.get("type") == "error" else None


class UsageReader(Protocol):
    """Reads an answer as it passes; never raises on rubbish."""

    def feed(self, chunk: bytes) -> None:
        """Takes the next bytes."""

    def finish(self) -> Usage:
        """What was found; call once, at the end."""


def reader_for(content_type: str) -> UsageReader:
    """The reader for answers of this Content-Type."""
    match content_type.partition(";")[0].strip().lower():
        case "text/event-stream":
            return _EventUsage()
        case aws_eventstream.CONTENT_TYPE:
            return _FrameUsage()
    return _JsonUsage()


class _EventUsage:
    def __init__(self) -> None:
        self._events = EventReader()
        self._usage = Usage(is_stream=True)

    def feed(self, chunk: bytes) -> None:
        # Most chunks of a stream are whole events of which none tells anything.
        if self._events.is_between_events and chunk.endswith(b"\n\n") and not _tells(chunk):
            return
        for event in self._events.feed(chunk):
            self._take(event.data)

    def finish(self) -> Usage:
        for event in self._events.finish():
            self._take(event.data)
        return self._usage

    def _take(self, data: bytes) -> None:
        if _tells(data):
            self._usage = self._usage.updated(_parsed(data))


def _tells(data: bytes) -> bool:
    return any(mark in data for mark in _TELLING)


class _FrameUsage:
    """Reads Bedrock's binary event stream, of either of its APIs."""

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
        # A frame that long is rubbish, or one of many to come: where the next one begins is not known.
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
        answer = _parsed(bytes(self._body))
        return Usage().updated(bedrock_converse.body(answer) if isinstance(answer, dict) else answer)


def _parsed(data: bytes) -> object:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None
