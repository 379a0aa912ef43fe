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
import subprocess
import tempfile
import time
from datetime import UTC, datetime
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
    """Versions, date and machine of a run."""
    version = subprocess.run([contestants.MITMDUMP, "--version"], capture_output=True, text=True, check=True)
    mitmproxy = version.stdout.split("\n")[0].removeprefix("Mitmproxy: ")
    cpu = next((x for x in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in x), ": unknown")
    return (
        f"mitmproxy {mitmproxy}, Python {platform.python_version()}, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC, "
        f"{os.cpu_count()} cores ({cpu.partition(': ')[2]}), load {os.getloadavg()[0]:.1f}. "
        "Medians of the runs, with least and most."
    )


def report(bench: Bench) -> str:
    """All of it in Markdown."""
    rows = [
        [name, *(cell(bench.values[name][key]) for key, _ in COLUMNS)]
        for name in (*OURS, *PEERS)
        if bench.values[name]["time 1 KB"]
    ]
    parts = [heading(), table(["", *(title for _, title in COLUMNS)], rows), judged(bench.values)]
    return "\n\n".join([*parts, *bench.notes])


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
    """Measure and tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--peers", type=int, default=2, help="runs in which the peers are measured too")
    parser.add_argument("--curves", action="store_true", help="the growth curves instead of the tables")
    parser.add_argument("--envoy", action="store_true", help="the exported Envoy beside others instead")
    parser.add_argument("--record", action="store_true", help="put the tables into docs/performance.md")
    parser.add_argument("--out", type=Path, help="also write the figures, as JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        bench = Bench(Path(folder))
        try:
            if options.envoy:
                print(envoys.tell(bench, options.runs))
                return
            if options.curves:
                text = f"{heading()}\n\n{curves.draw(bench)}"
            else:
                for number in range(options.runs):
                    began = time.monotonic()
                    run(bench, with_peers=number < options.peers)
                    took = time.monotonic() - began
                    print(f"run {number + 1}: {took:.0f} s, load {os.getloadavg()[0]:.1f}", flush=True)
                text = report(bench)
            print(text)
            if options.out:
                options.out.write_text(json.dumps(bench.values, indent=1))
            if options.record:
                replace_section("curves", text) if options.curves else record(text)
        finally:
            bench.close()


def record(text: str) -> None:
    """Put the table of this version of mitmproxy into the page, and the figure that README quotes."""
    version = "12" if "mitmproxy 12" in text else "11"
    replace_section(f"mitmproxy {version}", text)
    if version == "12" and (found := re.search(r"\| CPU 1 KB, of mitmdump's \| [^|]* \| ([0-9.]+) \|", text)):
        readme = ROOT / "README.md"
        quoted = re.sub(
            r"(a small request takes )[0-9.]+( of mitmdump's CPU)", rf"\g<1>{found[1]}\2", readme.read_text()
        )
        readme.write_text(quoted)


def replace_section(name: str, text: str) -> None:
    """Replace the text between the two marks of a section of docs/performance.md."""
    page = ROOT / "docs" / "performance.md"
    begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
    before, _, rest = page.read_text().partition(begin)
    page.write_text(before + begin + text.rstrip() + "\n" + end + rest.partition(end)[2])


if __name__ == "__main__":
    main()
