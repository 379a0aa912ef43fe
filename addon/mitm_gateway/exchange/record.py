"""The record of a handled request: one line to read, one log entry, the facts of the Gateway view."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

from ..credentials.value import Value
from ..llm.apis import Api
from ..llm.calls import identify
from ..llm.session import agent_in_headers, session_in_headers
from ..llm.usage import Usage
from ..text.printable import MAX_NAME, one_line, shown_name
from ..text.redact import has_query_key, is_key_header, masked_text
from ..wire.addresses import normal_path
from ..wire.request import RequestHead
from .plan import Plan

# How the host program saw a flow end: whole, or broken off by the upstream, the client or a timeout.
Ending = Literal["complete", "broke_off", "client_left", "timed_out"]
Outcome = Literal["ok", "refused", "upstream_error", "upstream_broke_off", "client_left", "timed_out"]
_ERROR_STATUS = 400
ANSWERED_HERE = "answered here"
REPLAYED = "answered from a recording"
# The values of the log that a client names.
_NAMES = frozenset({"method", "host", "model", "model_sent", "session", "agent", "service_tier"})


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
    bytes_came: int | None = None
    retry: str | None = None
    hint: str | None = None
    session: str | None = None
    agent: str | None = None
    cost_usd: float | None = None

    def note_head(self, head: RequestHead) -> None:
        """Note the request as the client sent it."""
        retry = head.get("x-stainless-retry-count")
        self.method, self.host, self.path = head.method, head.host, masked_text(head.path)
        self.retry = retry if retry is not None and retry.isdecimal() and retry != "0" else None
        self.session = _masked(session_in_headers(head.get)) or self.session
        self.agent = _masked(agent_in_headers(head.get))

    def note_session(self, session: str | None) -> None:
        """Note the session that the body names; one that a header names replaces it."""
        self.session = _masked(session)

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

    @property
    def is_answered_here(self) -> bool:
        """Return whether nothing was sent to an upstream."""
        return self.refusal is not None or not {ANSWERED_HERE, REPLAYED}.isdisjoint(self.notes)

    @property
    def outcome(self) -> Outcome:
        """Return how the request ended; only a response that is known to be whole is `ok`."""
        if self.refusal is not None:
            return "refused"
        if self.ending in ("client_left", "timed_out"):
            return self.ending
        if self.status is not None and self.ending == "broke_off":
            return "upstream_broke_off"
        failed = self._is_error or self.failure or self.hint
        if failed:
            return "upstream_error"
        return "upstream_broke_off" if self.is_cut_short else "ok"

    @property
    def _is_error(self) -> bool:
        """Return whether the status is an error; to a probe, "not found" is as good an answer as any."""
        if self.method.upper() == "HEAD" and self.status in (404, 405):
            return False
        return (self.status or 0) >= _ERROR_STATUS

    @property
    def is_cut_short(self) -> bool:
        """Return whether a stream of events ended without its last ones."""
        usage = self.usage
        return usage is not None and usage.is_stream and usage.model is not None and usage.stop_reason is None

    @property
    def api(self) -> Api:
        """Return the API that was asked."""
        return identify(self.host, self.method, normal_path(self.path.partition("?")[0])).api

    @property
    def prompt_tokens(self) -> int | None:
        """Return the tokens of the whole prompt, those in the cache included."""
        usage = self.usage
        if usage is None or usage.input_tokens is None or self.api.tokens.input_includes_cached:
            return usage.input_tokens if usage else None
        return usage.input_tokens + (usage.cache_read_tokens or 0) + (usage.cache_creation_tokens or 0)

    @property
    def fresh_tokens(self) -> int | None:
        """Return the tokens of the prompt that the cache neither served nor took."""
        usage = self.usage
        if usage is None or usage.input_tokens is None or not self.api.tokens.input_includes_cached:
            return usage.input_tokens if usage else None
        return max(
            0, usage.input_tokens - (usage.cache_read_tokens or 0) - (usage.cache_creation_tokens or 0)
        )

    @property
    def late_error(self) -> str | None:
        """Return the error inside a response whose status was good: streams fail like that."""
        return self.usage.error if self.usage and (self.status or 0) < _ERROR_STATUS else None

    @property
    def failure(self) -> str | None:
        """Return how the upstream failed after a good status: it broke off, or its stream ended in an error."""
        return None if self.ending == "client_left" else self.error or self.late_error

    def log_entry(self) -> dict[str, object]:
        """Return the keys of a `gateway_log` line; unknown values are absent."""
        usage, failure = self.usage or Usage(), self.failure
        entry = {
            "time": datetime.fromtimestamp(self.time, UTC).isoformat(timespec="milliseconds"),
            "rule": self.rule,
            "method": self.method,
            "host": self.host,
            "path": self.path,
            "upstream": self.upstream,
            "model": self.model or usage.model,
            "model_sent": self.model_sent,
            "status": self.status,
            "first_event_ms": _milliseconds(self.first_event_s),
            "total_ms": _milliseconds(self.total_s),
            "input_tokens": usage.input_tokens,
            "output_tokens": usage.output_tokens,
            "cache_read_tokens": usage.cache_read_tokens,
            "cache_creation_tokens": usage.cache_creation_tokens,
            "cache_creation_long_tokens": usage.cache_creation_long_tokens or None,
            "service_tier": usage.special_tier,
            "replayed": True if REPLAYED in self.notes else None,
            "bytes_out": self.bytes_out,
            "bytes_in": self.bytes_in,
            # A stream can fail after a good status, and no other key shows it.
            "refusal": f"upstream: {failure}" if failure and self.refusal is None else self.refusal,
            "outcome": self.outcome if self.total_s is not None else None,
            "hint": self.hint,
            "session": self.session,
            "agent": self.agent,
        }
        known: dict[str, object] = {key: value for key, value in entry.items() if value is not None}
        if _are_plain([value for value in known.values() if isinstance(value, str)]):
            return known
        return {key: _shown(key, value) if isinstance(value, str) else value for key, value in known.items()}

    def facts(self, entry: Mapping[str, object]) -> dict[str, object]:
        """Return the facts of the Gateway view as plain values, the log entry included; unknown values are absent."""
        facts = {
            **entry,
            "outcome": self.outcome if self.total_s is not None else "under way",
            "auth": self.auth,
            "credential": self.credential,
            "credential_age_s": None if self.credential_age_s is None else round(self.credential_age_s, 1),
            "edits": list(self.edits),
            "applied": None if self.applied is None else list(self.applied),
            "bytes_came": self.bytes_came,
            "retry": self.retry,
            "refusal": self.refusal,
            "error": self.error or self.late_error,
            "notes": list(self.notes),
            "is_answered_here": self.is_answered_here,
            "fresh_tokens": self.fresh_tokens,
        }
        return {key: value for key, value in facts.items() if value is not None}


def _masked(name: str | None) -> str | None:
    return None if name is None else masked_text(name)


def _are_plain(texts: Sequence[str]) -> bool:
    """Return whether all of these texts can be shown as they are."""
    return "".join(texts).isprintable() and max(map(len, texts)) <= MAX_NAME


def _shown(key: str, value: str) -> str:
    return shown_name(value) if key in _NAMES else one_line(value)


def auth_change(plan: Plan, head: RequestHead) -> str | None:
    """Return the places of the client's key and the gateway's scheme, such as `x-api-key → bearer`."""
    if plan.auth.scheme == "keep":
        return None
    slots = [name for name in head.values if is_key_header(name)]
    if not slots and has_query_key(head.target):
        slots = ["key in the query"]
    return f"{shown_name(' + '.join(slots)) or 'no key'} → {plan.auth.name or plan.auth.scheme}"


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 1)
