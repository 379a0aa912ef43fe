"""The record of a handled request, noted step by step; `report` derives the values that are shown."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ..credentials.value import Value
from ..llm.apis import Api
from ..llm.calls import identify
from ..llm.session import agent_in_headers, session_in_headers
from ..llm.usage import Usage
from ..text.printable import shown_name
from ..text.redact import is_key_header, masked_text, without_echoes, without_query_keys
from ..wire.addresses import normal_path
from ..wire.request import RequestHead
from .plan import Plan

# How the host program saw a flow end: whole, or broken off by the upstream, the client or a timeout.
Ending = Literal["complete", "broke_off", "client_left", "timed_out"]
ERROR_STATUS = 400
ANSWERED_HERE = "answered here"
REPLAYED = "answered from a recording"
# The attributes of a record with text of the client or the upstream.
_OF_PEERS = ("method", "path", "auth", "model", "model_sent", "session", "agent", "refusal", "error", "hint")


@dataclass(slots=True)
class Record:
    """One handled request, completed step by step. Times are in seconds; unknown values are None."""

    time: float
    method: str = ""
    host: str = ""
    path: str = ""
    rule: str | None = None
    auth: str | None = None
    upstream: str | None = None
    model: str | None = None
    model_sent: str | None = None
    is_unmapped: bool = False
    """The rule maps models, and no entry decides on one that the request names: it is sent as it is."""
    asked_for: dict[str, str] = field(default_factory=dict)
    """The client's name for each model that is sent, if the body names several."""
    status: int | None = None
    first_event_s: float | None = None
    total_s: float | None = None
    usage: Usage | None = None
    bytes_out: int | None = None
    bytes_in: int | None = None
    refusal: str | None = None
    error: str | None = None
    ending: Ending = "complete"
    notes: tuple[str, ...] = ()
    credential: str | None = None
    credential_age_s: float | None = None
    edits: tuple[str, ...] = ()
    applied: tuple[str, ...] | None = None
    bytes_received: int | None = None
    retry: str | None = None
    hint: str | None = None
    session: str | None = None
    """The session that the body names, unless a header names one."""
    agent: str | None = None
    cost_usd: float | None = None

    def note_head(self, head: RequestHead) -> None:
        """Note the request as the client sent it."""
        retry = head.get("x-stainless-retry-count")
        self.method, self.host, self.path = head.method, head.host, head.path
        self.retry = retry if retry is not None and retry.isdecimal() and retry != "0" else None
        self.session = session_in_headers(head.get) or self.session
        self.agent = agent_in_headers(head.get)

    def note_plan(self, plan: Plan, head: RequestHead) -> None:
        """Note what the plan does."""
        self.rule = plan.rule.name
        self.auth = auth_change(plan, head)
        self.upstream = "demo" if plan.demo else plan.destination.url
        if plan.model is not None:
            self.note_models(plan, (plan.model,))
        self.credential = plan.auth.credential
        self.edits = plan.rule.body.described

    def note_models(self, plan: Plan, names: tuple[str, ...]) -> None:
        """Note which names are sent for these, and whether the rule's map leaves one of them as it is."""
        models = plan.rule.models
        if models is not None and len(names) > 1:
            for name in names:
                self.asked_for.setdefault(models.sent_for(name), name)
        if models is not None and models.map and not all(map(models.names.covers, names)):
            self.is_unmapped = True

    def note_credential(self, value: Value, plan: Plan, now: float) -> None:
        """Note the age of a credential's value, and whether it is for another API than the rule's."""
        self.credential_age_s = now - value.read_at
        if api := value.other_api(plan.destination):
            self.notes = (*self.notes, f"the token is for {api.authority}: set upstream to {api}")

    def hide(self, secrets: Sequence[str]) -> None:
        """Mask these secrets, and everything like a key, in all texts of peers: an upstream can echo one as its model."""
        usage = self.usage or Usage()
        texts = [*(getattr(self, name) for name in _OF_PEERS), *usage]
        shown = "\n".join([text for text in texts if isinstance(text, str)])
        if _hidden(shown, secrets) == shown:
            return
        for name in _OF_PEERS:
            setattr(self, name, _hidden(getattr(self, name), secrets))
        self.usage = self.usage and Usage(*[_hidden(value, secrets) for value in self.usage])

    @property
    def api(self) -> Api:
        """Return the API that was asked."""
        return identify(self.host, self.method, normal_path(self.path.partition("?")[0])).api

    @property
    def late_error(self) -> str | None:
        """Return the error inside a response whose status was good: streams fail like that."""
        return self.usage.error if self.usage and (self.status or 0) < ERROR_STATUS else None

    @property
    def failure(self) -> str | None:
        """Return how the upstream failed after a good status: it broke off, or its stream ended in an error."""
        return None if self.ending == "client_left" else self.error or self.late_error

    @property
    def is_cut_short(self) -> bool:
        """Return whether a stream of events ended without its last ones."""
        usage = self.usage
        return usage is not None and usage.is_stream and usage.model is not None and usage.stop_reason is None


def _hidden(value: Any, secrets: Sequence[str]) -> Any:
    return masked_text(without_echoes(value, secrets)) if isinstance(value, str) else value


def auth_change(plan: Plan, head: RequestHead) -> str | None:
    """Return the places of the client's key and the gateway's scheme, such as `x-api-key → bearer`."""
    if plan.auth.scheme == "keep":
        return None
    slots = [name for name in head.values if is_key_header(name)]
    if not slots and without_query_keys(head.target) != head.target:
        slots = ["key in the query"]
    return f"{shown_name(' + '.join(slots)) or 'no key'} → {plan.auth.name or plan.auth.scheme}"
