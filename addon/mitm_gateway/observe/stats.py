"""Totals by rule and model over the lines of a `gateway_log`, as a table."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..text.printable import shown_name

# Percentiles cover the latest requests of a gateway that runs for months.
MAX_TIMES = 10_000
# Clients may invent model names; those beyond the limit share a row.
MAX_ROWS = 500
OTHERS = "(others)"
_MAX_NAME = 200
_LONGEST_MS = 1e12  # 30 years; a log may contain any number
_TOKENS = ("input_tokens", "output_tokens", "cache_read_tokens")
_TITLES = ("rule", "model", "requests", "errors", "in", "out", "cached",
           "first p50", "first p95", "total p50", "total p95")  # fmt: skip
_TEXT_COLUMNS = 2


class _Times:
    """The latest times, as an array: float objects would fragment the memory."""

    def __init__(self) -> None:
        self._values = array("d")
        self._oldest = 0

    def append(self, value: float) -> None:
        if len(self._values) < MAX_TIMES:
            self._values.append(value)
            return
        self._values[self._oldest] = value
        self._oldest = (self._oldest + 1) % MAX_TIMES

    def __iter__(self) -> Iterator[float]:
        return iter(self._values)


@dataclass(slots=True)
class _Totals:
    requests: int = 0
    errors: int = 0
    tokens: list[int] = field(default_factory=lambda: [0, 0, 0])
    first: _Times = field(default_factory=_Times)
    total: _Times = field(default_factory=_Times)

    def add(self, entry: Mapping[str, Any]) -> None:
        self.requests += 1
        self.errors += _is_error(entry)
        for position, name in enumerate(_TOKENS):
            count = entry.get(name)
            self.tokens[position] += count if isinstance(count, int) else 0
        for times, name in ((self.first, "first_event_ms"), (self.total, "total_ms")):
            if isinstance(value := entry.get(name), int | float) and 0 <= value < _LONGEST_MS:
                times.append(value)

    def row(self, rule: str, model: str) -> tuple[str, ...]:
        times = [
            _duration(_percentile(times, share)) for times in (self.first, self.total) for share in (50, 95)
        ]
        return (rule, model, *(f"{count:,}" for count in (self.requests, self.errors, *self.tokens)), *times)


def _is_error(entry: Mapping[str, Any]) -> bool:
    """Return True for a failed request; a log without outcomes has a status, a refusal or a hint instead."""
    if "outcome" in entry:
        return entry["outcome"] not in ("ok", "client_left")
    status = entry.get("status")
    return not isinstance(status, int) or status >= 400 or "refusal" in entry or "hint" in entry


class Stats:
    """The totals so far."""

    def __init__(self) -> None:
        self._totals: dict[tuple[str, str], _Totals] = {}
        self.unreadable = 0

    def add(self, entry: Mapping[str, Any]) -> None:
        """Add the entry of one request."""
        model = shown_name(str(entry.get("model_sent", entry.get("model", "-"))))
        key = (shown_name(str(entry.get("rule", "no rule"))), model[:_MAX_NAME])
        if key not in self._totals and len(self._totals) >= MAX_ROWS:
            key = (key[0], OTHERS)
        if (totals := self._totals.get(key)) is None:
            totals = self._totals[key] = _Totals()
        totals.add(entry)

    def add_lines(self, lines: Iterable[bytes]) -> None:
        """Add the lines of a log; malformed ones are counted in `unreadable`."""
        for line in lines:
            try:
                entry = json.loads(line)
            except (ValueError, RecursionError):
                entry = None
            if isinstance(entry, dict):
                self.add(entry)
            elif line.strip():
                self.unreadable += 1

    def table(self) -> list[str]:
        """Return the lines of the table, sorted by rule and model."""
        if not self._totals:
            return ["no requests"]
        rows = [
            _TITLES,
            *(totals.row(*key) for key, totals in sorted(self._totals.items(), key=lambda item: item[0])),
        ]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return [_aligned(row, widths) for row in rows]


def _aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = [
        cell.ljust(width) if column < _TEXT_COLUMNS else cell.rjust(width)
        for column, (cell, width) in enumerate(zip(row, widths, strict=True))
    ]
    return "  ".join(cells).rstrip()


def _percentile(values: Iterable[float], share: int) -> float | None:
    """Return the percentile by nearest rank."""
    ordered = sorted(values)
    return ordered[-(-len(ordered) * share // 100) - 1] if ordered else None


def _duration(milliseconds: float | None) -> str:
    if milliseconds is None:
        return "-"
    return f"{milliseconds:.0f} ms" if milliseconds < 1000 else f"{milliseconds / 1000:.1f} s"
