"""One recorded request with its response, the secrets masked."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from ..exchange.body_error import BodyError
from ..exchange.record import Ending, Record
from ..exchange.report import Report
from ..exchange.request_body import read_request_body
from ..llm.calls import call_of
from ..llm.prompt import Prompt, prompt_of
from ..llm.read_body import read
from ..llm.session import session_in_bytes
from ..llm.usage import usage_in
from ..wire.addresses import hostport
from ..wire.content_encoding import DecodingError
from ..wire.request import Arrival, Fields, RequestHead, as_text
from .masks import Masks

# Larger bodies of a recording are cut.
MAX_BODY_BYTES = 64 << 20


@dataclass(frozen=True)
class Part:
    """The fields and the decoded body of a request or a response."""

    fields: Fields = field(repr=False)
    raw: bytes = field(default=b"", repr=False)
    masks: Masks = field(default_factory=Masks, repr=False)

    @cached_property
    def body(self) -> bytes:
        """The body without secrets."""
        return self.masks.body(self.raw)

    @property
    def data(self) -> Any:
        """The data of the body, secrets included; of a stream the message that its events assemble."""
        return read(self.raw, self.content_type, [], lambda: 0.0)

    @property
    def content_type(self) -> str:
        """The value of Content-Type, or an empty text."""
        return next((as_text(value) for name, value in self.fields if name.lower() == b"content-type"), "")


def model_in(head: RequestHead, content: bytes) -> str | None:
    """Return the model in the path or in the decoded body of a request."""
    if model := call_of(head).model_in(head.target):
        return model
    try:
        body = read_request_body(head, content, MAX_BODY_BYTES)
    except (BodyError, DecodingError):
        return None
    return body.models[0] if body and body.models else None


@dataclass(frozen=True, slots=True)
class SocketMessage:
    """A message of a WebSocket."""

    from_client: bool
    content: bytes = field(repr=False)


@dataclass(frozen=True)
class Recorded:
    """A request as its client sent it, but with the body that the upstream received."""

    number: int
    head: RequestHead
    request: Part
    response: Part | None = None
    status: int | None = None
    time: float = 0.0
    first_event_s: float | None = None
    total_s: float | None = None
    error: str | None = None
    ending: Ending = "complete"
    facts: Mapping[str, object] = field(default_factory=dict)
    """The gateway's facts about it; empty in a recording that was made without the gateway."""
    arrival: Arrival = field(default_factory=Arrival)
    messages: tuple[SocketMessage, ...] = ()
    masks: Masks = field(default_factory=Masks, repr=False)
    session: str | None = None
    """The session that the client names, or one that a shared beginning shows."""

    @property
    def url(self) -> str:
        """The URL that the client asked for."""
        head = self.head
        return f"{head.scheme}://{hostport(head.host, head.port, head.scheme)}{head.target}"

    @property
    def is_conversation(self) -> bool:
        """The request belongs to a conversation with a model."""
        return self.head.method == "POST" and call_of(self.head).api.is_conversation

    @cached_property
    def asked_model(self) -> str | None:
        """The model that the client asked for."""
        if isinstance(model := self.facts.get("model"), str):
            return model
        return model_in(self.head, self.request.raw)

    @cached_property
    def entry(self) -> Mapping[str, object]:
        """The request as an entry of a `gateway_log`."""
        return self.facts or self._entry()

    @cached_property
    def prompt(self) -> Prompt | None:
        """The prompt of a conversation; None in any other request."""
        return prompt_of(self.request.data) if self.is_conversation else None

    @property
    def answer(self) -> Any:
        """The data of the response."""
        return self.response.data if self.response else None

    def _entry(self) -> Mapping[str, object]:
        report = Report.of(self._record())
        entry = report.log_entry()
        return entry if report.fresh_tokens is None else {**entry, "fresh_tokens": report.fresh_tokens}

    def _record(self) -> Record:
        record = Record(self.time, status=self.status, first_event_s=self.first_event_s, total_s=self.total_s)
        record.session = session_in_bytes(self.request.raw)
        record.note_head(self.head)
        record.model = self.asked_model
        record.bytes_out = len(self.request.raw)
        record.error, record.ending = self.error, self.ending
        if self.response is not None:
            record.bytes_in = len(self.response.raw)
            record.usage = usage_in(self.response.content_type, self.response.raw)
        record.hide(())
        return record
