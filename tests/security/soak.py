"""Many parallel streams, under a rule and without one, clients that leave, upstreams that fail: nothing may grow.

`make soak ARGS="STREAMS ROUNDS"` prints what it measured and ends with 1 where something grew.
"""

from __future__ import annotations

import signal
import socket
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from support.answers import Answer, Bytes, Close, Reply, Seen, Stream, message_events
from support.constants import ENV, TESTS
from support.mitmdump import Mitmdump
from support.one_rule import MAPPING, one_rule
from support.process_figures import memory_mb, open_files
from support.recorder import Recorder

COUNTING = TESTS / "support" / "scripts" / "count_tasks.py"
HEAD = b"POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nx-api-key: client-key\r\nContent-Type: application/json\r\n"
BODY = b'{"model":"claude-x","stream":true}'
REQUEST = HEAD + b"Content-Length: %d\r\n\r\n%b" % (len(BODY), BODY)
# Every third stream goes to the upstream by a plain proxy listener, where no rule takes it.
PASSING_EVERY = 3
# Between collections garbage waits: what connections leave in mitmproxy's own cycles, some 12 MB a round.
MAX_WAITING_MB = 32
# After a collection nothing may be left: one piece of memory for each stream would be more than this.
MAX_GROWTH = 0.005


class Upstream:
    """Answers streams; between rounds it fails in every way."""

    def __init__(self) -> None:
        self.fails = False
        self._count = 0

    def __call__(self, _: Seen) -> Answer:
        self._count += 1
        if not self.fails:
            return Stream(message_events("gw-model", ["word "] * 20))
        faults: list[Answer] = [Close(), Bytes(b"nonsense\r\n\r\n"), Reply(500, b"no"), Reply(401, b"no")]
        return faults[self._count % len(faults)]


@dataclass(frozen=True)
class Figures:
    """Figures of a process: memory, open files, tasks of its event loop."""

    memory_mb: float
    files: int
    tasks: int

    @classmethod
    def of(cls, proxy: Mitmdump) -> Figures:
        """The figures now; the tasks as of a moment ago."""
        pid = proxy.process.pid
        return cls(memory_mb(pid), open_files(pid), int((proxy.home / "tasks").read_text()))

    def exceed(self, other: Figures) -> bool:
        """Return True if there are more files or tasks than in the other figures."""
        return self.files > other.files or self.tasks > other.tasks

    def __str__(self) -> str:
        return f"{self.memory_mb:.0f} MB, {self.files} files, {self.tasks} tasks"


def settle(proxy: Mitmdump, start: Figures) -> Figures:
    """The figures when the connections have been closed, or after 20 s."""
    deadline = time.monotonic() + 20
    time.sleep(0.5)  # the tasks are counted ten times a second
    while (now := Figures.of(proxy)).exceed(start) and time.monotonic() < deadline:
        time.sleep(0.1)
    return now


def one_round(proxy: Mitmdump, upstream: Recorder, script: Upstream, streams: int) -> None:
    """All streams at once; half of the clients leave in the middle, the others stay to the end."""
    script.fails = False
    seen = len(upstream.requests)
    passing = REQUEST.replace(b"/v1", f"{upstream.url}/v1".encode())
    clients = []
    for number in range(streams):
        is_passing = number % PASSING_EVERY == 0
        clients.append(socket.create_connection(("127.0.0.1", proxy.ports[is_passing]), 60))
        clients[-1].sendall(passing if is_passing else REQUEST)
    upstream.wait_for_request(count=seen + streams, timeout=120)
    for client in clients:
        assert client.recv(1), "an answer begins while the others stream"
    for client in clients[::2]:
        client.close()
    upstream.release(streams * 40)
    for client in clients[1::2]:
        drain(client)
    script.fails = True
    others = [threading.Thread(target=fail_once, args=(proxy.port,)) for _ in range(40)]
    for other in others:
        other.start()
    for other in others:
        other.join()


def drain(client: socket.socket) -> None:
    """Read to the end of the response."""
    data = b""
    while not data.endswith(b"0\r\n\r\n"):
        data = data[-8:] + client.recv(65536)
    client.close()


def fail_once(port: int) -> None:
    """A request that the upstream fails."""
    with socket.create_connection(("127.0.0.1", port), 60) as client:
        client.sendall(REQUEST)
        assert client.recv(65536).startswith(b"HTTP/1.1 ")


def main(streams: int = 500, rounds: int = 6) -> int:
    """Run the rounds; return 0 if memory and files end as after the first ones."""
    script = Upstream()
    with tempfile.TemporaryDirectory() as folder, Recorder(script) as upstream:
        proxy = Mitmdump(
            Path(folder),
            *("--set", "flow_detail=0", "-s", str(COUNTING)),
            rules=one_rule(upstream.url, MAPPING),
            modes=["reverse:https://api.anthropic.com", "regular"],
            env={**ENV, "TEST_TASKS": str(Path(folder) / "tasks")},
        )
        try:
            return watch(proxy, upstream, script, streams, rounds)
        finally:
            proxy.kill()


def watch(proxy: Mitmdump, upstream: Recorder, script: Upstream, streams: int, rounds: int) -> int:
    """The rounds, with the figures after each."""
    time.sleep(0.5)
    start = Figures.of(proxy)
    print(f"start: {start}")
    after: list[Figures] = []
    before = held(proxy)
    for number in range(rounds):
        one_round(proxy, upstream, script, streams)
        upstream.requests.clear()
        after.append(settle(proxy, start))
        print(f"round {number + 1}: {streams} streams, {after[-1]}", flush=True)
        if number == 1:  # the level that is then held: mitmdump keeps no flows
            before = held(proxy)
    now, waiting = held(proxy), max(each.memory_mb for each in after) - after[1].memory_mb
    growth = now / before - 1
    print(f"pieces of memory held: {before:,} after round 2, {now:,} at the end ({growth:+.2%})")
    crashed = "Traceback" in proxy.output()
    grows = growth > MAX_GROWTH or waiting > MAX_WAITING_MB or after[-1].exceed(start)
    return int(grows or crashed)


def held(proxy: Mitmdump) -> int:
    """Return the number of live memory blocks after a collection."""
    file = proxy.home / "tasks.blocks"
    file.unlink(missing_ok=True)
    proxy.process.send_signal(signal.SIGUSR1)
    while not file.exists():
        time.sleep(0.01)
    return int(file.read_text())


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
