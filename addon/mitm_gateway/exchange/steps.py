"""Steps: the next action of an exchange's caller."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..text.turns import Turns
from ..wire.content_encoding import DecodingError, TooLarge
from ..wire.refusal import Refusal
from .body_error import BodyError, OvergrownError
from .local_answers import LocalAnswer
from .masked_head import MaskedHead
from .plan import Pass

NO_RULES = Refusal(503, "no rules are loaded yet; try again", retry=True)
NO_RECORDING = Refusal(503, "server_replay has just been changed; try again", retry=True)
NO_TRAILERS = Refusal(400, "the request has trailers, which are not forwarded; send those fields as headers")
MOVED = Refusal(502, "another addon moved the request away from its rule's upstream")
UNDECIDED = Refusal(502, "internal fault (no decision); nothing was sent")


def too_large(limit: int) -> Refusal:
    """Return the refusal of a body over the limit, in bytes."""
    return Refusal(413, f"the request body is larger than gateway_body_limit ({limit} bytes)")


def unreadable(fault: BodyError | DecodingError, limit: int) -> Refusal:
    """Return the refusal of a body that cannot be read."""
    if isinstance(fault, TooLarge):
        return too_large(limit)
    return Refusal(413 if isinstance(fault, OvergrownError) else 400, str(fault))


@dataclass(frozen=True, slots=True)
class Forward:
    """Let the request leave, with this head and this body; None keeps what the flow has."""

    head: MaskedHead | None = None
    body: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class NeedBody:
    """Hold the request until its body is complete, with this head."""

    head: MaskedHead


@dataclass(frozen=True, slots=True)
class NeedTurn:
    """Let other requests have their turn, then report to `on_turn`: the body takes long to read.

    The exchange does not keep the rest of the work, so that it ends with the request.
    """

    rest: Turns[Step] = field(repr=False)


@dataclass(frozen=True, slots=True)
class NeedCredentials:
    """Obtain these credentials."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AnswerFromRecording:
    """Answer from a recording: no credential is needed, and nothing is sent. `edited` is the body as it would be sent."""

    edited: bytes | None = field(default=None, repr=False)


Step = Forward | LocalAnswer | Refusal | Pass | NeedBody | NeedTurn | NeedCredentials | AnswerFromRecording
