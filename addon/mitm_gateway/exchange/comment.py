"""The comment beside a flow: one line that begins with what differs from row to row.

A good request begins with model and tokens, a failed one with its cause and the cure; rule, auth, time and cost follow.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache

from ..llm.usage import Usage
from ..text.printable import dollars, one_line, short_count, shown_name
from .record import Record

# The parts of a model's name that its siblings share: place, vendor and family before it, its date after it.
_BEFORE = re.compile(
    r"(?:.*/)?(?:[a-z]{2,6}(?:-[a-z]{2,4})?\.)?(?:[a-z][a-z0-9]*\.(?=[a-z]))?(?:claude-(?=(?:[a-z]+-)?\d))?",
    re.DOTALL,
)
_AFTER = re.compile(r"-v\d+:\d+$|(?:[-@]20\d{6}|-20\d\d-\d\d-\d\d)(?:-v\d+(?::\d+)?)?$")
_ENDINGS = {"client_left": "client left", "timed_out": "timed out", "upstream_broke_off": "broke off"}


def comment_of(record: Record) -> str:
    """Return the comment of a record."""
    prompt = record.prompt_tokens
    call = _call(record, prompt)
    is_good = record.refusal is None and (record.outcome == "ok" or record.total_s is None)
    head = [call, *_rule(record)] if is_good else [_cause(record), *_rule(record), call]
    tail = [str(record.status) if is_good and record.status else None, *_figures(record, prompt)]
    return one_line(", ".join(part for part in (*head, *tail, *record.notes) if part))


@lru_cache(maxsize=512)
def short_model(name: str) -> str:
    """Return a model's name without vendor, family and date: `opus-4-8` of `us.anthropic.claude-opus-4-8-v1:0`."""
    name = shown_name(name)
    found = _BEFORE.match(name)
    short = _AFTER.sub("", name[found.end() if found else 0 :])
    return short or name


def _call(record: Record, prompt: int | None) -> str | None:
    usage = record.usage or Usage()
    model = record.model or usage.model
    parts = [short_model(model)] if model else []
    if usage.input_tokens is not None or usage.output_tokens is not None:
        parts.append(f"{_count(prompt)}→{_count(usage.output_tokens)}")
    if record.model_sent is not None and record.model_sent != record.model:
        parts.append(f"→ {shown_name(record.model_sent)}")
    return " ".join(parts) or None


def _count(count: int | None) -> str:
    return "?" if count is None else short_count(count)


def _rule(record: Record) -> Iterator[str]:
    rule = record.rule or "no rule"
    yield f"{rule}: {record.auth}" if record.auth else rule
    if record.is_unmapped:
        yield "a model has no entry in models.map"


def _cause(record: Record) -> str:
    if record.refusal is not None:
        return f"refused with {record.status}: {record.refusal}"
    kind = _ENDINGS.get(record.outcome, "")
    error = record.error or (record.usage.error if record.usage else None)
    status = str(record.status) if record.status else ""
    title = ", ".join(part for part in (kind, status) if part)
    reasons = "; ".join(part for part in (error, record.hint) if part)
    return ": ".join(part for part in (title, reasons) if part) or "failed"


def _figures(record: Record, prompt: int | None) -> Iterator[str | None]:
    usage = record.usage or Usage()
    yield _duration(record.total_s)
    if usage.cache_read_tokens and prompt:
        yield f"{usage.cache_read_tokens * 100 // prompt} % cached"
    yield dollars(record.cost_usd) if record.cost_usd is not None else None


def _duration(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"
