"""The measurements: contestants on loopback, measured in turn, and their figures as text."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import contestants
from contestants import CACHE, HERE, Start, Unavailable

Values = dict[str, dict[str, list[float]]]
Note = Callable[[str, float | None], None]
Measure = Callable[["Running", Note], None]
ROOT = HERE.parent
SIZES = {"1 KB": 1 << 10, "100 KB": 100 << 10, "1 MB": 1 << 20, "10 MB": 10 << 20}
WORDS = 'def return the quick brown fox "model": \\ {} [] naïve import self'


# ---- what is sent ----


@cache
def body(size: int, model: str, wish: str = "") -> bytes:
    """A request in the shape of a coding client's, of about this many bytes; `wish` tells the upstream what to answer."""
    chance = random.Random(size)
    message: dict[str, Any] = {"model": model, "metadata": {"user_id": wish or "bench"}, "max_tokens": 1024}
    if wish.startswith("events="):
        message["stream"] = True
    message["messages"] = []
    room = size - len(json.dumps(message))
    while room > 60:
        text = " ".join(chance.choices(WORDS.split(), k=2000))[: min(room - 60, 8000)]
        message["messages"].append({"role": "user", "content": [{"type": "text", "text": text}]})
        room = size - sum(len(each["content"][0]["text"]) + 70 for each in message["messages"]) - 150
    return json.dumps(message, separators=(",", ":"), ensure_ascii=False).encode()


# ---- processes ----


def built(name: str) -> Path:
    """Return a program of this folder, compiled again if its source is newer."""
    source, program = HERE / f"{name}.c", CACHE / name
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        CACHE.mkdir(parents=True, exist_ok=True)
        subprocess.run(["cc", "-O2", "-o", program, source, "-lpthread"], check=True)
    return program


@dataclass
class Running:
    """A contestant that has been started."""

    name: str
    start: Start
    port: int
    home: Path
    process: subprocess.Popen[bytes]
    started_s: float = 0.0

    def pids(self) -> list[int]:
        """The process and all below it."""
        below = defaultdict(list)
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            below[parent].append(int(folder.name))
        found = [self.process.pid]
        for pid in found:
            found += below[pid]
        return found

    def cpu_s(self) -> float:
        """Seconds of CPU that all its threads have used."""
        used = 0
        for pid in self.pids():
            for file in Path(f"/proc/{pid}/task").glob("*/schedstat"):
                try:
                    used += int(file.read_text().split()[0])
                except OSError:
                    continue
        return used / 1e9

    def memory_mb(self, field: str) -> float:
        """A memory figure of /proc/PID/status, in MB."""
        total = 0
        for pid in self.pids():
            try:
                lines = Path(f"/proc/{pid}/status").read_text().splitlines()
            except OSError:
                continue
            total += sum(int(line.split()[1]) for line in lines if line.startswith(field))
        return total / 1024

    def load(self, data: bytes, connections: int, seconds: float, requests: int) -> dict[str, float]:
        """Send it requests from this many connections, and return the figures."""
        file = self.home / "body"
        file.write_bytes(data)
        counts = [str(self.port), str(connections), str(seconds), str(requests)]
        command = [str(built("load")), *counts, str(file), *self.start.headers]
        before = self.cpu_s()
        answer = subprocess.run(command, capture_output=True, check=True, timeout=seconds + 120)
        found: dict[str, float] = json.loads(answer.stdout)
        if found["done"]:
            found["cpu"] = (self.cpu_s() - before) / found["done"] * 1000
        return found

    def stop(self) -> None:
        """End it."""
        pids = self.pids()
        for sign in (signal.SIGTERM, signal.SIGKILL):
            for pid in pids:
                try:
                    os.kill(pid, sign)
                except ProcessLookupError:
                    continue
            try:
                self.process.wait(3)
                return
            except subprocess.TimeoutExpired:
                continue


def begin(name: str, make: Any, folder: Path, upstream: int) -> Running:
    """Start a contestant and wait for its first answer."""
    port, home = contestants.free_port(), Path(tempfile.mkdtemp(dir=folder))
    start = make(home, port, upstream)
    began = time.monotonic()
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(
            start.command, env=os.environ | start.env, stdout=log, stderr=log, cwd=home
        )
    running = Running(name, start, port, home, process)
    while time.monotonic() - began < 90:
        if process.poll() is not None:
            said = (home / "log").read_text().strip().rpartition("\n")[2]
            raise Unavailable(f"ended with {process.returncode}: {said}")
        if _listens(port) and running.load(body(1024, start.model), 1, 5, 1)["done"] == 1:
            running.started_s = time.monotonic() - began
            return running
        time.sleep(0.01)
    running.stop()
    raise Unavailable("gave no answer within 90 s")


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


# ---- measures ----


def measure_size(name: str) -> Measure:
    """Requests of one size by one client: time and CPU."""

    def measure(running: Running, note: Note) -> None:
        seconds = 0.4 if SIZES[name] < 1 << 20 else 0.6
        found = running.load(body(SIZES[name], running.start.model), 1, seconds, 2000)
        note(f"time {name}", found.get("request_p50"))
        note(f"cpu {name}", found.get("cpu"))

    return measure


def measure_rate(running: Running, note: Note) -> None:
    """Small requests by 16 clients."""
    note("requests/s", running.load(body(1024, running.start.model), 16, 0.5, 100_000)["per_second"])


def measure_streams(count: int, prefix: str = "") -> Measure:
    """This many streams of 50 events a second at once."""

    def measure(running: Running, note: Note) -> None:
        found = running.load(body(1500, running.start.model, "events=50,every=20"), count, 10, count)
        for name in ("first_p50", "delay_p50", "delay_p99"):
            note(prefix + name, found.get(name))

    return measure


def measure_download(running: Running, note: Note) -> None:
    """A large file: the time to its head, and its whole time."""
    found = running.load(body(200, running.start.model, f"bytes={200 << 20}"), 1, 20, 3)
    note("download head", found.get("head_p50"))
    note("download", found.get("request_p50"))


def measure_cpu(name: str) -> Measure:
    """CPU of requests of one size by four clients."""
    return lambda running, note: note(
        f"cpu {name} of 4", running.load(body(SIZES[name], running.start.model), 4, 0.6, 4000).get("cpu")
    )


def measure_memory(running: Running, note: Note) -> None:
    """The peak with 8 x 10 MB at once, after small requests."""
    running.load(body(1024, running.start.model), 8, 20, 1000)
    for pid in running.pids():
        Path(f"/proc/{pid}/clear_refs").write_text("5")
    running.load(body(10 << 20, running.start.model), 8, 5, 16)
    note("peak MB", running.memory_mb("VmHWM"))


def measure_edit(note: Note) -> None:
    """Milliseconds of the body edit alone: check all of it, change the model."""
    sys.path.insert(0, str(ROOT / "addon"))
    from mitm_gateway.exchange.json_body import scan
    from mitm_gateway.exchange.json_edits import edit

    for name in ("1 MB", "10 MB"):
        data = body(SIZES[name], contestants.ASKED)
        for _ in range(9):
            began = time.thread_time()
            edit(scan(data), model=lambda _name: contestants.SENT)
            note(f"edit {name}", (time.thread_time() - began) * 1000)


# ---- the run ----


class Bench:
    """The contestants that run, and the figures: one for each quantity and run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.values: Values = defaultdict(lambda: defaultdict(list))
        self._found: Values = defaultdict(lambda: defaultdict(list))
        self._notes: dict[str, str] = {}
        self._chance = random.Random(1)
        self.upstream = contestants.free_port()
        self.upstream_process = subprocess.Popen([built("upstream"), str(self.upstream)])
        self.running: list[Running] = []

    @property
    def notes(self) -> list[str]:
        """The contestants that were left out, with the reason."""
        return [f"- {name} is left out: {fault}" for name, fault in self._notes.items()]

    def start(self, makers: Mapping[str, Any]) -> None:
        """Start the contestants that are installed."""
        for name, make in makers.items():
            try:
                running = begin(name, make, self.folder, self.upstream)
            except (Unavailable, OSError) as fault:
                self._notes[name] = str(fault)
                continue
            self.note(name)("start s", running.started_s)
            self.running.append(running)

    def turn(self, *measures: Measure) -> None:
        """Take each measure of all that run, one after the other, in another order each time."""
        for measure in measures:
            for running in self._chance.sample(self.running, len(self.running)):
                try:
                    measure(running, self.note(running.name))
                except subprocess.TimeoutExpired as fault:
                    self._notes[f"A figure of {running.name}"] = f"no end after {fault.timeout:.0f} s"

    def group(self, makers: Mapping[str, Any], *measures: Measure) -> None:
        """Start some, measure them in turn and end them."""
        self.start(makers)
        self.turn(*measures)
        self.stop()

    def settle(self) -> None:
        """End a run: a quantity that was measured more than once in it counts by its median."""
        for name, found in self._found.items():
            for key, values in found.items():
                self.values[name][key].append(statistics.median(values))
        self._found.clear()

    def rounds(self, count: int, measure: Measure) -> None:
        """Take one measure of all that run, in this many runs."""
        for number in range(count):
            self.turn(measure)
            self.settle()
            print(f"round {number + 1}: load {os.getloadavg()[0]:.1f}", flush=True)

    def note(self, name: str) -> Note:
        """Return a function that keeps the figures of a contestant."""

        def note(key: str, value: float | None) -> None:
            if value is not None:
                self._found[name][key].append(value)

        return note

    def stop(self) -> None:
        """End every contestant."""
        for running in self.running:
            running.stop()
        self.running.clear()

    def close(self) -> None:
        """End the upstream too."""
        self.stop()
        self.upstream_process.kill()
        self.upstream_process.wait()


# ---- figures as text ----


def shown(value: float) -> str:
    """Return a number with three significant digits."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def cell(values: Sequence[float]) -> str:
    """Return the median, with the least and the most."""
    if not values:
        return "–"
    middle = shown(statistics.median(values))
    return f"{middle} ({shown(min(values))}–{shown(max(values))})" if len(values) > 1 else middle


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a Markdown table."""
    head = list(head)
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
