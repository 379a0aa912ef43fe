"""The benchmark: the gateway beside mitmdump without it, beside fast proxies and other LLM gateways.

Everything is on loopback. In each of five runs the contestants start anew and are measured in turn. Times of two runs
differ with what else the machine does, so most bars are ratios to mitmdump in the same run, and CPU stands beside time.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import tempfile
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import contestants
import curves
import envoys
from bars import judged
from contestants import OURS, PASSING, PEERS, RULES, WEB
from envoys import FILTERS
from measuring import (
    ROOT,
    SIZES,
    Bench,
    cell,
    measure_cpu,
    measure_download,
    measure_edit,
    measure_memory,
    measure_rate,
    measure_size,
    measure_streams,
    table,
)

COLUMNS = [
    *((f"time {name}", f"{name}, ms") for name in SIZES),
    ("requests/s", "requests/s, 16 conn."),
    ("cpu 1 KB", "CPU s / 1000, 1 KB"),
    ("first_p50", "first event, ms"),
    ("delay_p99", "event delay p99, ms"),
    ("peak MB", "peak MB, 8 × 10 MB"),
    ("start s", "start, s"),
]


def heading() -> str:
    """Return versions, date and machine of a run."""
    cpu = next((x for x in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in x), ": unknown")
    return (
        f"mitmproxy {version('mitmproxy')}, Python {platform.python_version()}, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC, "
        f"{os.cpu_count()} cores ({cpu.partition(': ')[2]}), load {os.getloadavg()[0]:.1f}. "
        "Medians of the runs, with least and most."
    )


def tables(bench: Bench, runs: int, peers: int) -> str:
    """Measure this many runs, the first ones with the peers, and return the tables in Markdown."""
    for number in range(runs):
        began = time.monotonic()
        run(bench, with_peers=number < peers)
        took = time.monotonic() - began
        print(f"run {number + 1}: {took:.0f} s, load {os.getloadavg()[0]:.1f}", flush=True)
    rows = [
        [name, *(cell(bench.values[name][key]) for key, _ in COLUMNS)]
        for name in (*OURS, *PEERS)
        if bench.values[name]["time 1 KB"]
    ]
    figures = table(["", *(title for _, title in COLUMNS)], rows)
    return "\n\n".join([figures, judged(bench.values), *bench.notes])


def run(bench: Bench, *, with_peers: bool) -> None:
    """Measure everything once, in groups of contestants that run at the same time."""
    sizes = [measure_size(name) for name in SIZES]
    streams = measure_streams(20)
    bench.group(OURS, *[*sizes, measure_rate, streams] * 3)
    for name, make in OURS.items():
        bench.group({name: make}, measure_memory)
    bench.group({"gateway": contestants.gateway()}, *[measure_streams(200, "200 ")] * 3)
    bench.group(PASSING, *[measure_download] * 3)
    bench.group(WEB, *[sizes[0], sizes[2]] * 3)
    bench.group(FILTERS, *[measure_cpu("1 KB"), measure_cpu("100 KB")] * 3)
    bench.group(RULES, *[measure_cpu("1 KB")] * 3)
    measure_edit(bench.note("body edit"))
    if with_peers:
        bench.group(PEERS, *sizes, measure_rate, streams, measure_memory)
    bench.settle()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--peers", type=int, default=2, help="runs in which the peers are measured too")
    parser.add_argument("--curves", action="store_true", help="the growth curves instead of the tables")
    parser.add_argument("--envoy", action="store_true", help="the exported Envoy beside others instead")
    parser.add_argument("--record", action="store_true", help="put the tables into docs/")
    parser.add_argument("--out", type=Path, help="also write the figures, as JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        bench = Bench(Path(folder))
        try:
            if options.envoy:
                name, text = "envoy", envoys.tell(bench, options.runs)
            elif options.curves:
                name, text = "curves", curves.draw(bench)
            else:
                name, text = (
                    f"mitmproxy {version('mitmproxy')[:2]}",
                    tables(bench, options.runs, options.peers),
                )
            text = f"{heading()}\n\n{text}"
            print(text)
            if options.out:
                options.out.write_text(json.dumps(bench.values, indent=1))
            if options.record:
                record(name, text)
        finally:
            bench.close()


def record(name: str, text: str) -> None:
    """Put a section into its page, and into README the figure that it quotes."""
    page = ROOT / "docs" / ("scale.md" if name == "envoy" else "performance.md")
    begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
    before, _, rest = page.read_text().partition(begin)
    page.write_text(before + begin + text.rstrip() + "\n" + end + rest.partition(end)[2])
    if name == "mitmproxy 12" and (
        found := re.search(r"\| CPU 1 KB, of mitmdump's \| [^|]* \| ([0-9.]+) \|", text)
    ):
        readme = ROOT / "README.md"
        quoted = r"(a small request takes )[0-9.]+( of mitmdump's CPU)"
        readme.write_text(re.sub(quoted, rf"\g<1>{found[1]}\2", readme.read_text()))


if __name__ == "__main__":
    main()
