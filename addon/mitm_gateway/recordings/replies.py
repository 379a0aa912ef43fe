"""Recorded responses, found by the request that a client makes: for tests that ask no model.

Two requests are the same if method, place, query, model and body are. Names of sessions and accounts in a body are
not compared, nor is the order of an object's members.
"""

import hashlib
import json
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from urllib.parse import parse_qsl

from ..text.bounded_json import parsed
from ..text.printable import shown_name
from ..text.redact import without_query_keys

T = TypeVar("T")
# Members at the top of a body that differ from session to session; the model is compared separately.
_UNCOMPARED = frozenset({"metadata", "prompt_cache_key", "client_metadata", "model"})
# The first block of Claude Code's system prompt, which rotates.
_BILLING = "x-anthropic-billing-header:"
# A miss is compared with at most this many recorded requests.
_MAX_NEAREST = 500
_PARTS = ("method", "host", "port", "path", "query", "model", "headers")


@dataclass(frozen=True, slots=True)
class Comparison:
    """The parts of a request that are left out of the comparison, or added to it: mitmproxy's own options."""

    ignores_host: bool = False
    ignores_port: bool = False
    ignores_content: bool = False
    ignored_params: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    reuses: bool = False


@dataclass(frozen=True, slots=True)
class Question:
    """A request as its client made it; `bodies` are the forms in which its body may have been recorded."""

    method: str
    host: str
    port: int
    target: str
    model: str | None
    bodies: tuple[bytes, ...] = field(repr=False)
    headers: Mapping[str, str | None] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Miss:
    """A request that no recorded response fits; the reason names the nearest one and its first difference."""

    reason: str


@dataclass(frozen=True, slots=True)
class _Recorded(Generic[T]):
    number: int
    question: Question
    response: T


class Replies(Generic[T]):
    """The recorded responses, each of which is given once and in the order of the recording."""

    def __init__(self, comparison: Comparison) -> None:
        self.comparison = comparison
        self._all: list[_Recorded[T]] = []
        self._waiting: dict[bytes, deque[_Recorded[T]]] = {}

    def __len__(self) -> int:
        return len(self._all)

    def add(self, number: int, question: Question, response: T) -> None:
        """Add a recorded request."""
        entry = _Recorded(number, question, response)
        self._all.append(entry)
        self._waiting.setdefault(self._key(question, question.bodies[0]), deque()).append(entry)

    def take(self, asked: Question) -> T | Miss:
        """Return the next response to this request."""
        used_up = False
        for body in dict.fromkeys(asked.bodies):
            waiting = self._waiting.get(self._key(asked, body))
            used_up = used_up or waiting is not None
            if waiting:
                return (waiting[0] if self.comparison.reuses else waiting.popleft()).response
        if used_up:
            return Miss(
                "each recorded response to this request has been given; server_replay_reuse gives it again"
            )
        return self._miss(asked)

    def _key(self, question: Question, body: bytes) -> bytes:
        content = b"" if self.comparison.ignores_content else _canonical(_read(body))
        return hashlib.blake2b(repr((self._parts(question), content)).encode()).digest()

    def _parts(self, question: Question) -> tuple[object, ...]:
        """Return the compared parts besides the body, in the order of `_PARTS`."""
        how = self.comparison
        path, _, query = without_query_keys(question.target).partition("?")
        pairs = parse_qsl(query, keep_blank_values=True, separator="&")
        return (
            question.method,
            None if how.ignores_host else question.host.lower(),
            None if how.ignores_port else question.port,
            path,
            tuple(pair for pair in pairs if pair[0] not in how.ignored_params),
            None if how.ignores_content else question.model,
            tuple(question.headers.get(name.lower()) for name in how.headers),
        )

    def _miss(self, asked: Question) -> Miss:
        if not self._all:
            return Miss("the recording contains no response")
        parts, bodies = self._parts(asked), [_read(body) for body in dict.fromkeys(asked.bodies)]
        best: tuple[int, int, str] | None = None
        for entry in self._all[-_MAX_NEAREST:]:
            score, where = self._likeness(entry, parts, bodies)
            if best is None or score > best[0]:
                best = (score, entry.number, where)
        assert best is not None
        return Miss(
            f"no recorded request is the same; the nearest is number {best[1]}, which differs in {best[2]}"
        )

    def _likeness(
        self, entry: _Recorded[T], parts: tuple[object, ...], bodies: Sequence[Any]
    ) -> tuple[int, str]:
        """Return how much of a request is equal, and the first part that differs."""
        known = self._parts(entry.question)
        # A request for something else has an equal method at most.
        score = sum(10 for one, other in zip(known, parts, strict=True) if one == other)
        differing = next(
            (name for name, *both in zip(_PARTS, known, parts, strict=True) if both[0] != both[1]), None
        )
        if self.comparison.ignores_content:
            return score, differing or "nothing"
        body = _read(entry.question.bodies[0])
        likeness, where = max((_equal_members(body, each), _first_difference(body, each)) for each in bodies)
        return score + likeness, differing or where or "the body"


def _read(body: bytes) -> Any:
    """Return the compared part of a body: data without the members that name a session, or the bytes."""
    try:
        data = parsed(body)
    except (ValueError, RecursionError):
        return body
    if not isinstance(data, dict):
        return data
    data = {key: value for key, value in data.items() if key not in _UNCOMPARED}
    if isinstance(data.get("system"), list):
        data["system"] = [block for block in data["system"] if not _is_billing(block)]
    return data


def _is_billing(block: Any) -> bool:
    text = block.get("text") if isinstance(block, dict) else None
    return isinstance(text, str) and text.startswith(_BILLING)


def _canonical(value: Any) -> bytes:
    return value if isinstance(value, bytes) else json.dumps(value, sort_keys=True).encode()


def _equal_members(one: Any, other: Any) -> int:
    """Return the number of equal members, or of equal elements of their longest list."""
    if not isinstance(one, dict) or not isinstance(other, dict):
        return int(one == other)
    count: int = sum(key in other and value == other[key] for key, value in one.items())
    said = [value.get("messages", value.get("input")) for value in (one, other)]
    if all(isinstance(each, list) for each in said):
        count += sum(a == b for a, b in zip(*said, strict=False))
    return count


def _first_difference(one: Any, other: Any) -> str:
    """Return the path of the first member that differs, such as `messages[2].content`; empty if none does."""
    try:
        steps = list(_steps(one, other))
    except RecursionError:
        return ""
    return "".join(steps).removeprefix(".")


def _steps(one: Any, other: Any) -> Iterator[str]:
    if isinstance(one, dict) and isinstance(other, dict):
        for key in {**one, **other}:
            if key not in one or key not in other or one[key] != other[key]:
                yield f".{shown_name(key)}"
                yield from _steps(one.get(key), other.get(key))
                return
    if isinstance(one, list) and isinstance(other, list):
        pairs = list(zip(one, other, strict=False))
        at = next((at for at, (a, b) in enumerate(pairs) if a != b), len(pairs))
        if at < max(len(one), len(other)):
            yield f"[{at}]"
        if at < len(pairs):
            yield from _steps(*pairs[at])
