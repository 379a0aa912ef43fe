"""The text of the Gateway view: the request as received and as forwarded, and its outcome."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from ..text.printable import dollars, indented, size, visible

Headers: TypeAlias = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class RequestText:
    """A request with its secrets masked."""

    line: str
    headers: Headers


def render(facts: Mapping[str, Any], received: RequestText, sent: RequestText | None) -> str:
    """Return the report on one flow, from `report.Report.facts`; `sent` is None if nothing was forwarded."""
    sections = [
        _summary(facts),
        _places(received, sent),
        _edits(facts),
        _figures(facts),
        _headers(received, sent),
    ]
    return visible("\n\n".join("\n".join(lines) for section in sections if (lines := list(section))))


def _summary(facts: Mapping[str, Any]) -> Iterator[str]:
    yield f"rule: {facts.get('rule', 'none')}"
    outcome = [facts.get("outcome"), facts.get("status"), facts.get("error")]
    yield f"outcome: {', '.join(str(part) for part in outcome if part)}"
    for name in ("refusal", "hint"):
        if name in facts:
            yield f"{name}: {facts[name]}"
    for note in facts.get("notes", ()):
        yield f"note: {note}"


def _places(received: RequestText, sent: RequestText | None) -> Iterator[str]:
    yield f"received: {received.line}"
    yield f"forwarded: {sent.line if sent else 'nothing; answered locally'}"


def _edits(facts: Mapping[str, Any]) -> Iterator[str]:
    if "auth" in facts:
        yield f"auth: {facts['auth']}"
    if "credential" in facts:
        age = facts.get("credential_age_s")
        yield f"credential: {facts['credential']}" + (f", {_age(age)}" if age is not None else "")
    if "model" in facts:
        sent = facts.get("model_sent", facts["model"])
        yield f"model: {facts['model']}" + (f" → {sent}" if sent != facts["model"] else ", unchanged")
    yield from _body_edits(facts)
    if "bytes_out" in facts:
        before, after = facts.get("bytes_received", facts["bytes_out"]), facts["bytes_out"]
        yield (
            f"body: {before:,} → {after:,} bytes"
            if "bytes_received" in facts
            else f"body: {size(after)}, unchanged"
        )


def _body_edits(facts: Mapping[str, Any]) -> Iterator[str]:
    """Yield the rule's edits, and which of them changed the body, if known."""
    applied = facts.get("applied")
    if applied is None and "bytes_out" in facts and "bytes_received" not in facts:
        applied = ()  # the body was forwarded unchanged
    edits = list(dict.fromkeys([*facts.get("edits", ()), *(applied or ())]))
    if edits:
        yield "body edits of the rule:" if applied is None else "body edits:"
    for edit in edits:
        yield indented(edit if applied is None or edit in applied else f"{edit}: no effect here")


def _age(seconds: float) -> str:
    if seconds < 1:
        return "fetched now"
    return f"fetched {seconds:.0f} s before" if seconds < 120 else f"fetched {seconds / 60:.0f} min before"


def _headers(received: RequestText, sent: RequestText | None) -> Iterator[str]:
    """Yield the headers that differ, new beside old, and then the others."""
    before, after = received.headers, sent.headers if sent else received.headers
    removed, kept = _parted(before, _counted(before) - _counted(after))
    new, _ = _parted(after, _counted(after) - _counted(before))
    new_by_name: dict[str, list[str]] = {}
    for name, value in new:
        new_by_name.setdefault(name.lower(), []).append(f"  + {name}: {value}")
    if removed or new:
        yield "headers changed:"
    for name, value in removed:
        yield f"  - {name}: {value}"
        yield from new_by_name.pop(name.lower(), [])
    yield from (line for lines in new_by_name.values() for line in lines)
    if kept:
        yield "headers unchanged:" if sent else "headers:"
    yield from (f"    {name}: {value}" for name, value in kept)


def _counted(headers: Headers) -> Counter[tuple[str, str]]:
    return Counter((name.lower(), value) for name, value in headers)


def _parted(headers: Headers, wanted: Counter[tuple[str, str]]) -> tuple[Headers, Headers]:
    """Split the headers into the wanted ones, as often as they are wanted, and the others."""
    found: list[tuple[str, str]] = []
    others: list[tuple[str, str]] = []
    for name, value in headers:
        is_wanted = wanted[name.lower(), value] > 0
        wanted[name.lower(), value] -= is_wanted
        (found if is_wanted else others).append((name, value))
    return found, others


def _figures(facts: Mapping[str, Any]) -> Iterator[str]:
    first, total = facts.get("first_event_ms"), facts.get("total_ms")
    times = [("first event", first, "ms"), ("total", total, "ms")]
    parts = [f"{name} {value:,.0f} {unit}" for name, value, unit in times if value is not None]
    tokens = facts.get("output_tokens")
    # A response in one piece has no speed, and the count of a broken one is unknown.
    if (
        tokens
        and facts.get("outcome") == "ok"
        and first is not None
        and total is not None
        and total - first >= 100
    ):
        parts.append(f"{tokens / (total - first) * 1000:,.0f} tokens per second")
    if parts:
        yield f"timing: {', '.join(parts)}"
    names = {"input_tokens": "in", "output_tokens": "out", "cache_read_tokens": "cache read",
             "cache_creation_tokens": "cache written", "cache_creation_long_tokens": "of them for longer"}  # fmt: skip
    counts = [f"{label} {facts[name]:,}" for name, label in names.items() if name in facts]
    if counts:
        yield f"tokens: {', '.join(counts)}"
    if "cost_usd" in facts:
        yield f"cost: {dollars(facts['cost_usd'])}"
    elif "service_tier" in facts:
        yield f"cost: unknown for the tier {facts['service_tier']}"
    if "bytes_in" in facts:
        yield f"response: {size(facts['bytes_in'])}"
    if "session" in facts:
        agent = f", agent {facts['agent']}" if "agent" in facts else ""
        yield f"session: {facts['session']}{agent}"
    if facts.get("retry"):
        yield f"retry: number {facts['retry']} by the client"
