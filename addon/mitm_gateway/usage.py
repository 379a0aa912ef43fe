"""What an answer says of itself: model, tokens, why it stopped; from passing events or whole JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

from .sse import EventReader

# An answer longer than this is not parsed for its usage.
MAX_JSON_BYTES = 8 << 20
# No other event holds what is looked for.
_TELLING = (b'"usage"', b'"model"', b'"stop_reason"', b'"finish_reason"', b'"error"')


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens as the API reports them; None where it says nothing."""

    model: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_tokens: int | None = None
    cache_creation_tokens: int | None = None
    stop_reason: str | None = None
    error: str | None = None

    def updated(self, data: object) -> Usage:
        """The usage with what an event or an answer adds; rubbish adds nothing."""
        if not isinstance(data, Mapping):
            return self
        result = self
        for part in (data, data.get("message"), data.get("response"), data.get("delta")):
            if isinstance(part, Mapping):
                result = _with_part(result, part)
        return result


def _with_part(usage: Usage, part: Mapping[str, Any]) -> Usage:
    found: dict[str, Any] = {
        "model": _text(part.get("model")),
        "stop_reason": _text(part.get("stop_reason")) or _finish_reason(part),
        "error": _error(part.get("error")),
    }
    if isinstance(tokens := part.get("usage"), Mapping):
        found |= _tokens(tokens)
    return replace(usage, **{name: value for name, value in found.items() if value is not None})


def _tokens(tokens: Mapping[str, Any]) -> dict[str, int | None]:
    details = tokens.get("input_tokens_details") or tokens.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, Mapping) else None
    return {
        "input_tokens": _first(tokens, "input_tokens", "prompt_tokens"),
        "output_tokens": _first(tokens, "output_tokens", "completion_tokens"),
        "cache_read_tokens": _first(tokens, "cache_read_input_tokens") if cached is None else _number(cached),
        "cache_creation_tokens": _first(tokens, "cache_creation_input_tokens"),
    }


def _first(tokens: Mapping[str, Any], *names: str) -> int | None:
    return next((number for name in names if (number := _number(tokens.get(name))) is not None), None)


def _number(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _finish_reason(part: Mapping[str, Any]) -> str | None:
    choices = part.get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], Mapping):
        return _text(choices[0].get("finish_reason"))
    return None


def _error(value: object) -> str | None:
    if isinstance(value, Mapping):
        return _text(value.get("type")) or _text(value.get("code")) or "error"
    return None


class UsageReader(Protocol):
    """Reads an answer as it passes; never raises on rubbish."""

    def feed(self, chunk: bytes) -> None:
        """Takes the next bytes."""

    def finish(self) -> Usage:
        """What was found; call once, at the end."""


def reader_for(content_type: str) -> UsageReader:
    """The reader for answers of this Content-Type."""
    kind = content_type.partition(";")[0].strip().lower()
    return _EventUsage() if kind == "text/event-stream" else _JsonUsage()


class _EventUsage:
    def __init__(self) -> None:
        self._events = EventReader()
        self._usage = Usage()

    def feed(self, chunk: bytes) -> None:
        for event in self._events.feed(chunk):
            self._take(event.data)

    def finish(self) -> Usage:
        for event in self._events.finish():
            self._take(event.data)
        return self._usage

    def _take(self, data: bytes) -> None:
        if any(mark in data for mark in _TELLING):
            self._usage = self._usage.updated(_parsed(data))


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
        return Usage().updated(_parsed(bytes(self._body)))


def _parsed(data: bytes) -> object:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None
