"""The comment beside a flow: one line that begins with the parts that differ from row to row.

A good request begins with model and tokens, a failed one with its cause and the cure; rule, auth, time and cost follow.
"""

import re

from ..text.printable import dollars, one_line, short_count, shown_name
from ..text.short_cache import remember_short
from .record import Record
from .report import Report

# The parts of a model's name that its siblings share: place, vendor and family before it, its date after it.
_BEFORE = re.compile(
    r"(?:.*/)?(?:[a-z]{2,6}(?:-[a-z]{2,4})?\.)?(?:[a-z][a-z0-9]*\.(?=[a-z]))?(?:claude-(?=(?:[a-z]+-)?\d))?",
    re.DOTALL,
)
_AFTER = re.compile(r"-v\d+:\d+$|(?:[-@]20\d{6}|-20\d\d-\d\d-\d\d)(?:-v\d+(?::\d+)?)?$")
_ENDINGS = {"client_left": "client left", "timed_out": "timed out", "upstream_broke_off": "broke off"}


def comment_of(report: Report) -> str:
    """Return the comment of a record."""
    record = report.record
    call = _call(report)
    is_good = record.refusal is None and (report.outcome == "ok" or record.total_s is None)
    head = [call, *_rule(record)] if is_good else [_cause(report), *_rule(record), call]
    tail = [str(record.status) if is_good and record.status else None, *_figures(report)]
    return one_line(", ".join([part for part in (*head, *tail, *record.notes) if part]))


@remember_short
def short_model(name: str) -> str:
    """Return a model's name without vendor, family and date: `opus-4-8` of `us.anthropic.claude-opus-4-8-v1:0`."""
    name = shown_name(name)
    found = _BEFORE.match(name)
    short = _AFTER.sub("", name[found.end() if found else 0 :])
    return short or name


def _call(report: Report) -> str | None:
    record, usage = report.record, report.usage
    parts = [short_model(report.model)] if report.model else []
    if usage.input_tokens is not None or usage.output_tokens is not None:
        parts.append(f"{_count(report.prompt_tokens)}→{_count(usage.output_tokens)}")
    if record.model_sent is not None and record.model_sent != record.model:
        parts.append(f"→ {shown_name(record.model_sent)}")
    return " ".join(parts) or None


def _count(count: int | None) -> str:
    return "?" if count is None else short_count(count)


def _rule(record: Record) -> list[str]:
    rule = record.rule or "no rule"
    named = f"{rule}: {record.auth}" if record.auth else rule
    return [named, "a model has no entry in models.map"] if record.is_unmapped else [named]


def _cause(report: Report) -> str:
    record = report.record
    if record.refusal is not None:
        return f"refused with {record.status}: {record.refusal}"
    kind = _ENDINGS.get(report.outcome, "")
    error = record.error or report.usage.error
    status = str(record.status) if record.status else ""
    title = ", ".join(part for part in (kind, status) if part)
    reasons = "; ".join(part for part in (error, record.hint) if part)
    return ": ".join(part for part in (title, reasons) if part) or "failed"


def _figures(report: Report) -> list[str | None]:
    record, prompt, read = report.record, report.prompt_tokens, report.usage.cache_read_tokens
    return [
        _duration(record.total_s),
        f"{read * 100 // prompt} % cached" if read and prompt else None,
        dollars(record.cost_usd) if record.cost_usd is not None else None,
    ]


def _duration(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"
