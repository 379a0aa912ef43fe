"""Totals over the lines of a `gateway_log`, by rule and model, by session or by outcome, as a table."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from operator import itemgetter
from typing import IO, Any, Literal, TypeAlias, get_args

from ..exchange.facts import known_facts
from ..text.bounded_json import parsed_object
from ..text.printable import dollars, shown_name
from .prices import is_free
from .text_table import Column, aligned

By: TypeAlias = Literal["rule-model", "rule", "model", "session", "outcome"]
WAYS: tuple[By, ...] = get_args(By)
Cost: TypeAlias = Callable[[Mapping[str, Any]], float | None]

# Percentiles cover the latest requests of a gateway that runs for months.
MAX_TIMES = 1_000
# Rows with different rules, models, sessions and outcomes. Beyond the limit, sessions share a row, and beyond twice the
# limit models do: clients may invent names.
MAX_ROWS = 2_000
OTHERS = "(others)"
_MAX_NAME = 200
# No name in a log is longer than a head.
MAX_LINE = 1 << 20
_TOKENS = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_creation_tokens")


@dataclass(slots=True)
class _Totals:
    requests: int = 0
    errors: int = 0
    tokens: list[int] = field(default_factory=lambda: [0, 0, 0, 0])
    cost: float = 0.0
    priced: int = 0
    unpriced: int = 0
    """Requests with tokens and without a known cost."""
    # The latest times, as numbers: float objects would fragment the memory.
    first: array[float] = field(default_factory=lambda: array("d"))
    total: array[float] = field(default_factory=lambda: array("d"))

    def add(self, entry: Mapping[str, Any], cost: float | None) -> None:
        """Add the entry of one request."""
        get = entry.get
        self.requests += 1
        self.errors += _is_error(entry)
        has_tokens = False
        for place, name in enumerate(() if get("replayed") is True else _TOKENS):
            if count := get(name):
                self.tokens[place] += count
                has_tokens = True
        if cost is not None:
            self.cost += cost
            self.priced += 1
        elif has_tokens and not is_free(entry):
            self.unpriced += 1
        if get("method") != "HEAD":  # the times of a client's probes would hide those of its answers
            for times, value in ((self.first, get("first_event_ms")), (self.total, get("total_ms"))):
                if value is not None:
                    times.append(value)
                    del times[:-MAX_TIMES]

    @staticmethod
    def sum_of(parts: Sequence[_Totals]) -> _Totals:
        """Return the sum of several totals."""
        return _Totals(
            sum(part.requests for part in parts),
            sum(part.errors for part in parts),
            [sum(counts) for counts in zip(*(part.tokens for part in parts), strict=True)],
            sum(part.cost for part in parts),
            sum(part.priced for part in parts),
            sum(part.unpriced for part in parts),
            array("d", chain.from_iterable(part.first for part in parts)),
            array("d", chain.from_iterable(part.total for part in parts)),
        )

    def cells(self) -> list[str]:
        """Return the cells of the columns behind the names."""
        counts = [f"{count:,}" for count in (self.requests, self.errors, *self.tokens)]
        times = [
            _duration(_percentile(times, share)) for times in (self.first, self.total) for share in (50, 95)
        ]
        return [*counts, self._shown_cost(), *times]

    def _shown_cost(self) -> str:
        if not self.priced:
            return "-"
        return f"≥{dollars(self.cost)}" if self.unpriced else dollars(self.cost)


def logged_cost(entry: Mapping[str, Any]) -> float | None:
    """Return the cost that an entry contains."""
    return None if is_free(entry) else entry.get("cost_usd")


def _is_error(entry: Mapping[str, Any]) -> bool:
    """Return True for a failed request; a log without outcomes has a status, a refusal or a hint instead.

    A WebSocket that the gateway refuses is no failure: the client continues over HTTP.
    """
    outcome = entry.get("outcome")
    if outcome in ("ok", "client_left"):
        return False
    if entry.get("status") == 426 and outcome in ("refused", None) and "refusal" in entry:
        return False
    if "outcome" in entry:
        return True
    status = entry.get("status")
    return status is None or status >= 400 or "refusal" in entry or "hint" in entry


class Stats:
    """The totals so far. `cost` returns the cost of an entry; by default the logged one."""

    def __init__(self, cost: Cost = logged_cost) -> None:
        self._cost = cost
        self._totals: dict[_Key, _Totals] = {}
        self.unreadable = 0

    def add(self, entry: Mapping[str, Any]) -> None:
        """Add the entry of one request."""
        get = entry.get
        key = (get("rule"), get("model_sent", get("model")), get("session"), get("outcome"))
        (self._totals.get(key) or self._row(key)).add(entry, self._cost(entry))

    def _row(self, raw: tuple[object, ...]) -> _Totals:
        rule, model, session, outcome = (None if part is None else str(part)[:_MAX_NAME] for part in raw)
        key = (rule, model, session, outcome)
        if key not in self._totals and len(self._totals) >= MAX_ROWS:
            key = (rule, model, OTHERS, outcome)
        if key not in self._totals and len(self._totals) >= 2 * MAX_ROWS:
            key = (rule, OTHERS, OTHERS, outcome)
        return self._totals.setdefault(key, _Totals())

    def add_lines(self, log: IO[bytes]) -> None:
        """Add the lines of a log; malformed ones are counted in `unreadable`."""
        for line in _lines(log):
            if (entry := parsed_object(line)) is not None:
                self.add(known_facts(entry))
            elif line.strip():
                self.unreadable += 1

    def table(self, by: By = "rule-model", width: int | None = None) -> list[str]:
        """Return the lines of the table, sorted by name, with a line of totals; at most this many columns wide."""
        if not self._totals:
            return ["no requests"]
        names = by.split("-")
        groups: dict[tuple[str, ...], list[_Totals]] = {}
        for key, totals in self._totals.items():
            parts = dict(zip(_KEY, key, strict=True))
            groups.setdefault(tuple(_shown(name, parts[name]) for name in names), []).append(totals)
        rows = [
            (*key, *_Totals.sum_of(found).cells()) for key, found in sorted(groups.items(), key=itemgetter(0))
        ]
        blank = [""] * (len(names) - 1)
        rows.append(("total", *blank, *_Totals.sum_of(list(self._totals.values())).cells()))
        return aligned([Column(name, is_text=True) for name in names] + _COLUMNS, rows, width)


def _lines(log: IO[bytes]) -> Iterator[bytes]:
    """Yield the lines; of one that is longer than a gateway writes, only the beginning."""
    is_rest = False
    while line := log.readline(MAX_LINE):
        if not is_rest:
            yield line
        is_rest = not line.endswith(b"\n")


_KEY = ("rule", "model", "session", "outcome")
_Key: TypeAlias = tuple[str | None, ...]


def _shown(name: str, value: str | None) -> str:
    return shown_name(value) if value is not None else "no rule" if name == "rule" else "-"


# In a narrow table, the columns with the highest rank go first.
_COLUMNS = [
    Column("requests"), Column("errors"), Column("in", rank=1), Column("out", rank=1), Column("cached", rank=3),
    Column("written", rank=4), Column("cost"), Column("first p50", rank=7), Column("first p95", rank=6),
    Column("total p50", rank=5), Column("total p95", rank=2),
]  # fmt: skip


def _percentile(values: Iterable[float], share: int) -> float | None:
    """Return the percentile by nearest rank."""
    ordered = sorted(values)
    return ordered[-(-len(ordered) * share // 100) - 1] if ordered else None


def _duration(milliseconds: float | None) -> str:
    if milliseconds is None:
        return "-"
    return f"{milliseconds:.0f} ms" if milliseconds < 1000 else f"{milliseconds / 1000:.1f} s"
