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
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import contestants
from contestants import CACHE, HERE, Start, Unavailable

Values = dict[str, dict[str, list[float]]]
ROOT = HERE.parent
# The contestants whose ratios are judged; the others are measured in fewer rounds.
OURS = ("gateway", "gateway, served", "mitmdump")
PEER_ROUNDS = 2
SIZES = {"1 KB": 1 << 10, "100 KB": 100 << 10, "1 MB": 1 << 20, "10 MB": 10 << 20}
WORDS = (
    "def",
    "return",
    "the",
    "quick",
    "brown",
    "fox",
    '"model":',
    "\\",
    "{}",
    "[]",
    "naïve",
    "import",
    "self",
)


# ---- what is sent ----


def body(size: int, model: str, wish: str = "") -> bytes:
    """A request in the shape of a coding client's, of about this many bytes; `wish` tells the upstream what to answer."""
    chance = random.Random(size)
    message: dict[str, Any] = {"model": model, "metadata": {"user_id": wish or "bench"}, "max_tokens": 1024}
    if wish.startswith("events="):
        message["stream"] = True
    message["messages"] = []
    room = size - len(json.dumps(message))
    while room > 60:
        text = " ".join(chance.choices(WORDS, k=2000))[: min(room - 60, 8000)]
        message["messages"].append({"role": "user", "content": [{"type": "text", "text": text}]})
        room = size - sum(len(each["content"][0]["text"]) + 70 for each in message["messages"]) - 150
    return json.dumps(message, separators=(",", ":"), ensure_ascii=False).encode()


# ---- processes ----


def free_port() -> int:
    """A free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def built(name: str) -> Path:
    """A program of this folder, compiled where it is newer than what is there."""
    source, program = HERE / f"{name}.c", CACHE / name
    if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
        CACHE.mkdir(parents=True, exist_ok=True)
        subprocess.run(["cc", "-O2", "-o", program, source, "-lpthread"], check=True)
    return program


@dataclass
class Running:
    """A contestant under way."""

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
        """Runs clients against it."""
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
        """Ends it."""
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
    """Starts a contestant and waits for its first answer."""
    port, home = free_port(), Path(tempfile.mkdtemp(dir=folder))
    start = make(home, port, upstream)
    began = time.monotonic()
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(
            start.command, env=os.environ | start.env, stdout=log, stderr=log, cwd=home
        )
    running = Running(name, start, port, home, process)
    while time.monotonic() - began < 90:
        if process.poll() is not None:
            raise Unavailable(f"ended with {process.returncode}; see {home / 'log'}")
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


def measure_once(running: Running, note: Any) -> None:
    """One round of one contestant: each measure a second or so."""
    model = running.start.model
    for name, size in SIZES.items():
        data = body(size, model)
        found = running.load(data, 1, 1.0 if size < 1 << 20 else 1.6, 2000)
        note(f"time {name}", found.get("request_p50"))
        note(f"cpu {name}", found.get("cpu"))
    found = running.load(body(1024, model), 16, 1.2, 100_000)
    note("requests/s", found["per_second"])
    note("cpu 16", found.get("cpu"))
    found = running.load(body(1500, model, "events=50,every=20"), 20, 5, 20)
    for name in ("first_p50", "delay_p50", "delay_p99"):
        note(name, found.get(name))


def measure_many_streams(running: Running, note: Any) -> None:
    """200 streams of 50 events a second at once."""
    found = running.load(body(1500, running.start.model, "events=50,every=20"), 200, 10, 200)
    for name in ("delay_p50", "delay_p99"):
        note(f"200 {name}", found.get(name))


def measure_download(running: Running, note: Any) -> None:
    """A large file: the time to its head, and its whole time."""
    found = running.load(body(200, running.start.model, f"bytes={200 << 20}"), 1, 20, 2)
    note("download head", found.get("head_p50"))
    note("download", found.get("request_p50"))


def measure_web(running: Running, note: Any) -> None:
    """A small and a large request."""
    for name, size, seconds in (("1 KB", 1 << 10, 1.0), ("1 MB", 1 << 20, 1.5)):
        note(
            f"time {name}", running.load(body(size, running.start.model), 1, seconds, 1000).get("request_p50")
        )


def measure_cpu(running: Running, note: Any) -> None:
    """CPU of small and medium requests."""
    for name in ("1 KB", "100 KB"):
        found = running.load(body(SIZES[name], running.start.model), 4, 1.0, 4000)
        note(f"cpu {name}", found.get("cpu"))


def measure_memory(running: Running, note: Any, requests: int) -> None:
    """Peak with 8 x 10 MB at once, and what many small requests leave behind."""
    small = body(1024, running.start.model)
    running.load(small, 8, 20, 1000)
    before = running.memory_mb("VmRSS")
    if requests:
        running.load(small, 8, 120, requests)
        note("grown MB", running.memory_mb("VmRSS") - before)
    for pid in running.pids():
        Path(f"/proc/{pid}/clear_refs").write_text("5")
    running.load(body(10 << 20, running.start.model), 8, 30, 16)
    note("peak MB", running.memory_mb("VmHWM"))


def measure_edit() -> dict[str, float]:
    """Milliseconds of the body edit alone: check all of it, change the model."""
    sys.path.insert(0, str(HERE.parent / "addon"))
    from mitm_gateway.exchange.json_body import scan
    from mitm_gateway.exchange.json_edits import edit

    best = {}
    for name, size in list(SIZES.items())[1:]:
        data = body(size, contestants.ASKED)
        times = []
        for _ in range(15):
            began = time.thread_time()
            edit(scan(data), model=lambda _name: contestants.SENT)
            times.append((time.thread_time() - began) * 1000)
        best[name] = statistics.median(times)
    return best


# ---- the run ----


class Bench:
    """Contestants, rounds and what was found."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.values: Values = defaultdict(lambda: defaultdict(list))
        self.notes: list[str] = []
        self.upstream = free_port()
        self.upstream_process = subprocess.Popen([built("upstream"), str(self.upstream)])
        self.running: list[Running] = []

    def start(self, makers: dict[str, Any]) -> None:
        """Starts all that are there."""
        for name, make in makers.items():
            try:
                running = begin(name, make, self.folder, self.upstream)
            except (Unavailable, OSError) as fault:
                self.notes.append(f"{name} is left out: {fault}")
                continue
            self.values[name]["start s"].append(running.started_s)
            self.running.append(running)

    def rounds(self, count: int, measure: Any) -> None:
        """Measures all in turn, in another order each round."""
        for number in range(count):
            began = time.monotonic()
            for running in random.Random(number).sample(self.running, len(self.running)):
                measure(running, self._noter(running.name))
            print(
                f"round {number + 1}: {time.monotonic() - began:.0f} s, load {os.getloadavg()[0]:.1f}",
                flush=True,
            )

    def _noter(self, name: str) -> Any:
        return lambda key, value: self.values[name][key].append(value) if value is not None else None

    def stop(self) -> None:
        """Ends everything."""
        for running in self.running:
            running.stop()
        self.running.clear()

    def close(self) -> None:
        """Ends the upstream too."""
        self.stop()
        self.upstream_process.kill()
        self.upstream_process.wait()


# ---- figures as text ----


def shown(value: float) -> str:
    """A number with three significant digits."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def cell(values: Sequence[float]) -> str:
    """Median, and least and most."""
    if not values:
        return "–"
    middle = shown(statistics.median(values))
    return f"{middle} ({shown(min(values))}–{shown(max(values))})" if len(values) > 1 else middle


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table."""
    head = list(head)
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def ratio(values: Values, key: str, name: str = "gateway", other: str = "mitmdump") -> float | None:
    """The median over the rounds of one contestant's figure by another's in the same round."""
    pairs = list(zip(values[name][key], values[other][key], strict=False))
    return statistics.median(a / b for a, b in pairs) if pairs else None
