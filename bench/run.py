"""The benchmark: the gateway beside mitmdump without it, beside fast proxies and other LLM gateways.

All contestants run at once on loopback and are measured in turn, in rounds; the medians of the rounds are printed
with the least and the most. Times of two runs differ with what else the machine does, so bars are ratios to
mitmdump in the same rounds, and CPU seconds stand beside the times.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import contestants
from contestants import CONTESTANTS
from measuring import (
    OURS,
    PEER_ROUNDS,
    ROOT,
    SIZES,
    Bench,
    Running,
    Values,
    body,
    cell,
    measure_cpu,
    measure_download,
    measure_edit,
    measure_many_streams,
    measure_memory,
    measure_once,
    measure_web,
    ratio,
    shown,
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


Bar = tuple[str, str, float | None, bool]


def bars(values: Values, edits: dict[str, float], rules: float | None) -> list[Bar]:
    """The bars: name, bar, measured value, and whether lower is better."""
    median = {key: statistics.median(found) for key, found in values["gateway"].items() if found}
    stock = {key: statistics.median(found) for key, found in values["mitmdump"].items() if found}
    late = median["start s"] - stock["start s"]
    passing, streaming = "gateway, passing", "mitmdump, streaming"
    web = ("gateway in mitmweb", "mitmweb")
    envoy = ("Envoy, exported", "Envoy, by hand")
    return [
        ("time 1 KB, of mitmdump's", "0.48", ratio(values, "time 1 KB"), True),
        ("CPU 1 KB, of mitmdump's", "0.48", ratio(values, "cpu 1 KB"), True),
        ("time 100 KB", "0.52", ratio(values, "time 100 KB"), True),
        ("CPU 100 KB", "0.52", ratio(values, "cpu 100 KB"), True),
        ("time 1 MB", "0.75", ratio(values, "time 1 MB"), True),
        ("CPU 1 MB", "0.75", ratio(values, "cpu 1 MB"), True),
        ("time 10 MB", "0.9", ratio(values, "time 10 MB"), True),
        ("time 10 MB, as serve starts it", "0.9", ratio(values, "time 10 MB", "gateway, served"), True),
        ("requests/s, 16 connections", "2.1", ratio(values, "requests/s"), False),
        (
            "200 MB that pass, speed to the first byte",
            "1",
            ratio(values, "download head", streaming, passing),
            False,
        ),
        ("200 MB that pass, throughput", "1", ratio(values, "download", streaming, passing), False),
        ("first event of 20 streams, ms", "2", median.get("first_p50"), True),
        ("delay per event p99, ms", "1", median.get("delay_p99"), True),
        ("200 streams, delay p50, ms", "2", median.get("200 delay_p50"), True),
        ("200 streams, delay p99, ms", "50", median.get("200 delay_p99"), True),
        ("peak memory, 8 × 10 MB", "0.6", ratio(values, "peak MB"), True),
        ("growth over 20,000 requests, MB", "5", median.get("grown MB"), True),
        ("start, s over mitmdump", "0.2", late, True),
        ("mitmweb, time 1 KB", "0.75", ratio(values, "time 1 KB", *web), True),
        ("mitmweb, time 1 MB", "0.95", ratio(values, "time 1 MB", *web), True),
        ("Envoy, CPU 1 KB, of a hand-written filter's", "1.3", ratio(values, "cpu 1 KB", *envoy), True),
        ("Envoy, CPU 100 KB", "1.4", ratio(values, "cpu 100 KB", *envoy), True),
        ("10,000 rules by 1, CPU", "1.05", rules, True),
        ("body edit 1 MB, ms", "4", edits["1 MB"], True),
        ("body edit 10 MB, ms", "45", edits["10 MB"], True),
    ]


def heading() -> str:
    """Versions, date and machine of a run."""
    version = subprocess.run([contestants.MITMDUMP, "--version"], capture_output=True, text=True, check=True)
    mitmproxy = version.stdout.split("\n")[0].removeprefix("Mitmproxy: ")
    cpu = next((x for x in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in x), ": unknown")
    return (
        f"mitmproxy {mitmproxy}, Python {platform.python_version()}, {datetime.now(UTC):%Y-%m-%d %H:%M} UTC, "
        f"{os.cpu_count()} cores ({cpu.partition(': ')[2]}), load {os.getloadavg()[0]:.1f}. "
        "Medians over the rounds, with least and most."
    )


def report(bench: Bench, edits: dict[str, float], rules: float | None) -> str:
    """All of it in Markdown."""
    values = bench.values
    rows = [
        [name, *(cell(values[name][key]) for key, _ in COLUMNS)]
        for name in values
        if name in CONTESTANTS and values[name]["time 1 KB"]
    ]
    judged = []
    for name, bar, found, lower in bars(values, edits, rules):
        if found is None:
            judged.append([name, f"{'≤' if lower else '≥'} {bar}", "–", "not measured"])
            continue
        met = found <= float(bar) if lower else found >= float(bar)
        judged.append([name, f"{'≤' if lower else '≥'} {bar}", shown(found), "met" if met else "**not met**"])
    return "\n".join(
        [
            heading(),
            "",
            table(["", *(title for _, title in COLUMNS)], rows),
            "",
            table(["bar", "", "measured", ""], judged),
            "",
            *(f"- {note}" for note in bench.notes),
        ]
    )


def main() -> None:
    """Measure and tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", help="contestants, separated by semicolons")
    parser.add_argument(
        "--growth", type=int, default=20_000, help="requests of the memory measure; 0 for none"
    )
    parser.add_argument("--curves", action="store_true", help="the growth curves instead of the table")
    parser.add_argument("--envoy", action="store_true", help="the exported Envoy beside others instead")
    parser.add_argument("--record", action="store_true", help="put the table into docs/performance.md")
    parser.add_argument("--out", type=Path, help="also write the figures, as JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        bench = Bench(Path(folder))
        try:
            if options.curves:
                from curves import draw

                text = f"{heading()}\n\n{draw(bench)}"
                print(text)
                if options.record:
                    replace_section("curves", text)
                return
            if options.envoy:
                from envoys import tell

                print(tell(bench, options.rounds))
                return
            names = options.only.split(";") if options.only else list(CONTESTANTS)
            peers = [name for name in names if name not in OURS]
            for group, rounds in (([n for n in names if n in OURS], options.rounds), (peers, PEER_ROUNDS)):
                bench.start({name: CONTESTANTS[name] for name in group})
                bench.rounds(min(rounds, options.rounds) if group else 0, measure_once)
                bench.stop()
            for name in ("mitmdump", "gateway", *(n for n in names if n not in ("mitmdump", "gateway"))):
                bench.start({name: CONTESTANTS[name]})
                for running in bench.running:
                    measure_memory(running, bench._noter(name), options.growth if name == "gateway" else 0)
                bench.stop()
            compare_pairs(bench, min(3, options.rounds))
            rules = by_rules(bench, options.rounds * 2)
            text = report(bench, measure_edit(), rules)
            print(text)
            if options.out:
                options.out.write_text(json.dumps(bench.values, indent=1))
            if options.record:
                record(text)
        finally:
            bench.close()


def compare_pairs(bench: Bench, rounds: int) -> None:
    """Measure what only two contestants are compared in."""
    from envoys import by_hand

    pairs: list[tuple[dict[str, Any], Any]] = [
        ({"gateway": contestants.gateway()}, measure_many_streams),
        (
            {"gateway, passing": contestants.passing, "mitmdump, streaming": contestants.streaming},
            measure_download,
        ),
        ({"gateway in mitmweb": contestants.gateway_web, "mitmweb": contestants.stock_web}, measure_web),
        ({"Envoy, exported": contestants.exported(), "Envoy, by hand": by_hand(1)}, measure_cpu),
    ]
    for makers, measure in pairs:
        for name in makers:  # the start and the CPU of another measure are not comparable
            if measure is measure_cpu:
                bench.values[name]["cpu 1 KB"].clear()
                bench.values[name]["cpu 100 KB"].clear()
        bench.start(makers)
        bench.rounds(rounds, measure)
        bench.stop()


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


def by_rules(bench: Bench, rounds: int) -> float | None:
    """CPU of a small request with 10,000 rules by that with one."""
    many, one = "10,000 rules", "1 rule"
    bench.start({one: contestants.gateway(1), many: contestants.gateway(10_000)})

    def measure(running: Running, note: Any) -> None:
        note("cpu 1 KB", running.load(body(1024, running.start.model), 4, 2, 600).get("cpu"))

    bench.rounds(rounds, measure)
    bench.stop()
    return ratio(bench.values, "cpu 1 KB", many, one)


if __name__ == "__main__":
    main()
