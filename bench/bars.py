"""The bars: each quantity that is judged, its bound, and the heading in docs/performance.md that explains it."""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Collection
from dataclasses import dataclass
from operator import sub, truediv

from contestants import PASSING, RULES, WEB
from envoys import FILTERS
from measuring import Values, shown, table


@dataclass(frozen=True)
class Bar:
    """A quantity of one contestant, or of two in the same run, and its bound: `≤ 0.48`."""

    title: str
    bound: str
    key: str
    cause: str
    of: Collection[str] = ("gateway", "mitmdump")
    compare: Callable[[float, float], float] = truediv

    def runs(self, values: Values) -> list[float]:
        """The figure of each run."""
        found = [values[name][self.key] for name in self.of]
        return [self.compare(*pair) for pair in zip(*found, strict=False)] if len(found) == 2 else found[0]

    def is_met(self, value: float) -> bool:
        """Report whether a run keeps the bound."""
        sign, bound = self.bound.split()
        return value <= float(bound) if sign == "≤" else value >= float(bound)


ALONE = ("gateway",)
SMALL, LARGE, FILES, STREAMS = "Small requests", "Large bodies", "Passing downloads", "Streams"
START, MEMORY, FILTER, RULE = "Starts", "Peak memory", "The exported filter's CPU", "CPU by rules"
BARS = (
    Bar("time 1 KB, of mitmdump's", "≤ 0.48", "time 1 KB", SMALL),
    Bar("CPU 1 KB, of mitmdump's", "≤ 0.48", "cpu 1 KB", SMALL),
    Bar("time 100 KB", "≤ 0.52", "time 100 KB", SMALL),
    Bar("CPU 100 KB", "≤ 0.52", "cpu 100 KB", SMALL),
    Bar("time 1 MB", "≤ 0.75", "time 1 MB", LARGE),
    Bar("CPU 1 MB", "≤ 0.75", "cpu 1 MB", LARGE),
    Bar("time 10 MB", "≤ 0.9", "time 10 MB", LARGE),
    Bar("time 10 MB, as `serve` starts it", "≤ 0.9", "time 10 MB", LARGE, ("gateway, served", "mitmdump")),
    Bar("requests/s, 16 connections", "≥ 2.1", "requests/s", SMALL),
    Bar("200 MB that pass, speed to the first byte", "≥ 1", "download head", FILES, PASSING),
    Bar("200 MB that pass, throughput", "≥ 1", "download", FILES, PASSING),
    Bar("20 streams, first event, ms", "≤ 2", "first_p50", STREAMS, ALONE),
    Bar("20 streams, delay per event p99, ms", "≤ 1", "delay_p99", STREAMS, ALONE),
    Bar("200 streams, delay per event p50, ms", "≤ 2", "200 delay_p50", STREAMS, ALONE),
    Bar("200 streams, delay per event p99, ms", "≤ 50", "200 delay_p99", STREAMS, ALONE),
    Bar("peak memory, 8 × 10 MB", "≤ 0.6", "peak MB", MEMORY),
    Bar("start, s over mitmdump's", "≤ 0.2", "start s", START, compare=sub),
    Bar("mitmweb, time 1 KB", "≤ 0.75", "time 1 KB", SMALL, WEB),
    Bar("mitmweb, time 1 MB", "≤ 0.95", "time 1 MB", LARGE, WEB),
    Bar("Envoy, CPU 1 KB, of a hand-written filter's", "≤ 1.3", "cpu 1 KB of 4", FILTER, FILTERS),
    Bar("Envoy, CPU 100 KB", "≤ 1.4", "cpu 100 KB of 4", FILTER, FILTERS),
    Bar("10,000 rules, CPU 1 KB, of one rule's", "≤ 1.05", "cpu 1 KB of 4", RULE, RULES),
    Bar("body edit 1 MB, ms", "≤ 4", "edit 1 MB", LARGE, ("body edit",)),
    Bar("body edit 10 MB, ms", "≤ 45", "edit 10 MB", LARGE, ("body edit",)),
)


def judged(values: Values) -> str:
    """Return all bars in Markdown: each with its median, its runs, and how many of them keep it; four of five are due."""
    rows = []
    for bar in BARS:
        runs = bar.runs(values)
        met = sum(bar.is_met(value) for value in runs)
        anchor = re.sub(r"[^\w -]", "", bar.cause.lower()).replace(" ", "-")
        verdict = f"{met} of {len(runs)}" if runs else "not measured"
        rows.append(
            [
                bar.title,
                bar.bound,
                shown(statistics.median(runs)) if runs else "–",
                verdict if runs and met >= 0.8 * len(runs) else f"**{verdict}**",
                " ".join(map(shown, runs)),
                f"[{bar.cause}](#{anchor})",
            ]
        )
    return table(["", "bar", "median", "met in", "each run", "profile"], rows)
