"""The share of each speed patch: CPU and time with all of them, and with all but one.

One gateway serves everything. A script in it takes single patches away between short rounds, which are interleaved.
Other work on the machine only ever adds to a round, so the lowest decile of the rounds is compared. Peak memory
depends on all that a process has done, so each of its rounds starts the gateway anew.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from contestants import Start, gateway, gateway_web, passing
from measuring import ROOT, SIZES, Bench, Running, body, measure_memory

SWITCH = """
import asyncio, gc, pathlib, signal
from mitm_gateway.patches.table import PATCHES
from mitmproxy import ctx
class Switch:
    def running(self):
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, self.switch)
    def switch(self):
        order = pathlib.Path("without")
        patches = ctx.master.addons.get("gateway")._lifecycle.patches
        patches.undo("speed")
        for patch in PATCHES:
            if patch.kind == "speed" and patch.name != order.read_text():
                patches.apply(patch)
        gc.collect()
        order.unlink()
addons = [Switch()]
"""
# Connections, requests of a round and what they ask for.
CASES: dict[str, tuple[int, int, int, str]] = {
    "1 KB": (1, 60, SIZES["1 KB"], ""),
    "100 KB": (1, 60, SIZES["100 KB"], ""),
    "1 MB": (1, 20, SIZES["1 MB"], ""),
    "10 MB": (1, 5, SIZES["10 MB"], ""),
    "16 connections": (16, 160, SIZES["1 KB"], ""),
    "20 streams": (20, 20, 1500, "events=50,every=20"),
    "20 MB that pass": (1, 5, 200, f"bytes={20 << 20}"),
    "memory": (0, 0, 0, ""),
}
Figures = dict[str, float]


def switchable(make: Callable[[Path, int, int], Start]) -> Callable[[Path, int, int], Start]:
    """Return the contestant with the switch in it."""

    def start(home: Path, port: int, upstream: int) -> Start:
        (home / "switch.py").write_text(SWITCH)
        begun = make(home, port, upstream)
        return replace(begun, command=[*begun.command, "-s", str(home / "switch.py")])

    return start


def take_away(running: Running, name: str) -> None:
    """Put all speed patches in force but this one."""
    order = running.home / "without"
    order.write_text(name)
    os.kill(running.process.pid, signal.SIGUSR1)
    while order.exists():
        time.sleep(0.002)


def measure(running: Running, case: str, name: str) -> Figures:
    """Return the figures of a round without one patch."""
    take_away(running, name)
    if case == "memory":
        found: Figures = {}
        measure_memory(running, lambda key, value: found.update({key: value or 0.0}))
        return found
    connections, requests, size, wish = CASES[case]
    data = body(size, running.start.model, wish)
    if not wish.startswith("events"):
        running.load(data, connections, 20, connections)
    found = running.load(data, connections, 20, requests)
    if found["errors"]:
        sys.exit(f"{found['errors']:.0f} requests were not served")
    shown = (
        ("cpu", "request_p50") if "delay_p50" not in found else ("cpu", "first_p50", "delay_p50", "delay_p99")
    )
    return {key: found[key] for key in shown}


def main() -> None:
    """Print a line for each patch."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--case", choices=CASES, default="1 KB")
    parser.add_argument("--web", action="store_true", help="in mitmweb, to which no browser is connected")
    parser.add_argument("patches", nargs="*", help="names of speed patches (default: all)")
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT / "addon"))
    from mitm_gateway.patches.table import PATCHES

    names = ["", *(options.patches or [patch.name for patch in PATCHES if patch.kind == "speed"])]
    make: Any = gateway_web if options.web else passing if "pass" in options.case else gateway()
    found: dict[str, list[Figures]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        try:
            for _ in range(options.rounds):
                for name in names:
                    if not bench.running or options.case == "memory":
                        bench.stop()
                        bench.start({"gateway": switchable(make)})
                    found[name].append(measure(bench.running[0], options.case, name))
        finally:
            bench.close()
    print(table(found, statistics.median if options.case == "memory" else lowest_decile))


def table(found: dict[str, list[Figures]], typical: Callable[[list[float]], float]) -> str:
    """Return a line for each patch."""
    figures = {
        name: {key: typical([each[key] for each in rounds]) for key in rounds[0]}
        for name, rounds in found.items()
    }
    whole = figures.pop("")
    lines = [f"with all: {', '.join(f'{key} {value:.3f}' for key, value in whole.items())}"]
    for name, values in figures.items():
        shares = [f"{key} {value / whole[key] - 1:+.1%}" for key, value in values.items()]
        lines.append(f"without {name:18} {', '.join(shares)}")
    return "\n".join(lines)


def lowest_decile(values: list[float]) -> float:
    """Return a value that a tenth of these keep below."""
    return statistics.quantiles(values, n=10, method="inclusive")[0]


if __name__ == "__main__":
    main()
