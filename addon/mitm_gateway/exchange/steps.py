"""Steps: what the caller of an exchange has to do next."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..wire.addresses import Upstream
from ..wire.refusal import Refusal
from ..wire.request import Fields
from .local_answers import LocalAnswer
from .plan import Pass


@dataclass(frozen=True, slots=True)
class OutgoingHead:
    """A request's head as its rule sends it, its secrets masked; without a destination it is the client's own."""

    destination: Upstream | None
    target: str
    fields: Fields


@dataclass(frozen=True, slots=True)
class Forward:
    """Let the request leave, with this head and this body; None keeps what the flow has."""

    head: OutgoingHead | None = None
    body: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class NeedBody:
    """Hold the request until its body is complete, with this head."""

    head: OutgoingHead


@dataclass(frozen=True, slots=True)
class NeedCredentials:
    """Obtain these credentials."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Replay:
    """Answer from a recording: no credential is needed, and nothing is sent. `edited` is the body as it would be sent."""

    edited: bytes | None = field(default=None, repr=False)


Step = Forward | LocalAnswer | Refusal | Pass | NeedBody | NeedCredentials | Replay
