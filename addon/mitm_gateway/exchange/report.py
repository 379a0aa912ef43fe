"""A report on a record: the values that comment, log, statistics, view and telemetry show, derived once."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Literal, NamedTuple

from ..llm.usage import Usage
from ..text.printable import MAX_NAME, one_line, shown_name
from .record import ANSWERED_HERE, ERROR_STATUS, REPLAYED, Record

Outcome = Literal["ok", "refused", "upstream_error", "upstream_broke_off", "client_left", "timed_out"]
# The values of the log that a client names.
_NAMES = frozenset({"method", "host", "model", "model_sent", "session", "agent", "service_tier"})
_NO_USAGE = Usage()


class Report(NamedTuple):
    """A record as it stands, and what follows from it."""

    record: Record
    usage: Usage
    model: str | None
    """The model that the request or else the response names."""
    outcome: Outcome
    """How the request ended; only a response that is known to be whole is `ok`."""
    prompt_tokens: int | None
    """The tokens of the whole prompt, those in the cache included."""
    fresh_tokens: int | None
    """The tokens of the prompt that the cache neither served nor took."""

    @classmethod
    def of(cls, record: Record) -> Report:
        """Return the report on a record."""
        usage = record.usage or _NO_USAGE
        return cls(
            record, usage, record.model or usage.model, _outcome(record), *_prompt_tokens(record, usage)
        )

    @property
    def is_answered_here(self) -> bool:
        """Return whether nothing was sent to an upstream."""
        record = self.record
        return record.refusal is not None or not {ANSWERED_HERE, REPLAYED}.isdisjoint(record.notes)

    def log_entry(self) -> dict[str, object]:
        """Return the keys of a `gateway_log` line; unknown values are absent."""
        record, usage, failure = self.record, self.usage, self.record.failure
        entry = {
            "time": datetime.fromtimestamp(record.time, UTC).isoformat(timespec="milliseconds"),
            "rule": record.rule,
            "method": record.method,
            "host": record.host,
            "path": record.path,
            "upstream": record.upstream,
            "model": self.model,
            "model_sent": record.model_sent,
            "status": record.status,
            "first_event_ms": _milliseconds(record.first_event_s),
            "total_ms": _milliseconds(record.total_s),
            "input_tokens": usage.input_tokens,
            "output_tokens": usage.output_tokens,
            "cache_read_tokens": usage.cache_read_tokens,
            "cache_creation_tokens": usage.cache_creation_tokens,
            "cache_creation_long_tokens": usage.cache_creation_long_tokens or None,
            "service_tier": usage.special_tier,
            "replayed": True if REPLAYED in record.notes else None,
            "bytes_out": record.bytes_out,
            "bytes_in": record.bytes_in,
            # A stream can fail after a good status, and no other key shows it.
            "refusal": f"upstream: {failure}" if failure and record.refusal is None else record.refusal,
            "outcome": self.outcome if record.total_s is not None else None,
            "hint": record.hint,
            "session": record.session,
            "agent": record.agent,
        }
        known: dict[str, object] = {key: value for key, value in entry.items() if value is not None}
        texts = [value for value in known.values() if isinstance(value, str)]
        if "".join(texts).isprintable() and max(map(len, texts)) <= MAX_NAME:
            return known
        return {key: _shown(key, value) if isinstance(value, str) else value for key, value in known.items()}

    def facts(self, entry: Mapping[str, object]) -> dict[str, object]:
        """Return the facts of the Gateway view as plain values, the log entry included; unknown values are absent."""
        record, age = self.record, self.record.credential_age_s
        facts = {
            **entry,
            "outcome": self.outcome if record.total_s is not None else "under way",
            "auth": record.auth,
            "credential": record.credential,
            "credential_age_s": age if age is None else round(age, 1),
            "edits": list(record.edits),
            "applied": None if record.applied is None else list(record.applied),
            "bytes_received": record.bytes_received,
            "retry": record.retry,
            "refusal": record.refusal,
            "error": record.error or record.late_error,
            "notes": list(record.notes),
            "is_answered_here": self.is_answered_here,
            "fresh_tokens": self.fresh_tokens,
        }
        return {key: value for key, value in facts.items() if value is not None}


def _outcome(record: Record) -> Outcome:
    if record.refusal is not None:
        return "refused"
    if record.ending in ("client_left", "timed_out"):
        return record.ending
    if record.status is not None and record.ending == "broke_off":
        return "upstream_broke_off"
    if record.failure or record.hint or _is_error(record):
        return "upstream_error"
    return "upstream_broke_off" if record.is_cut_short else "ok"


def _is_error(record: Record) -> bool:
    """Return whether the status is an error; to a probe, "not found" is as good an answer as any."""
    status = record.status or 0
    return status >= ERROR_STATUS and not (status in (404, 405) and record.method.upper() == "HEAD")


def _prompt_tokens(record: Record, usage: Usage) -> tuple[int | None, int | None]:
    """Return the tokens of the whole prompt, and of its part outside the cache."""
    count, cached = usage.input_tokens, (usage.cache_read_tokens or 0) + (usage.cache_creation_tokens or 0)
    if count is None or not cached:
        return count, count
    if record.api.tokens.input_includes_cached:
        return count, max(0, count - cached)
    return count + cached, count


def _shown(key: str, value: str) -> str:
    return shown_name(value) if key in _NAMES else one_line(value)


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 1)
