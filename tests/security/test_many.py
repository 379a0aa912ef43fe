"""Thousands of connections at once: idle ones, endless heads, and one that expects a response."""

import contextlib
import json
import platform
import random
import re
import signal
import socket
from collections.abc import Iterator

import pytest

from support.answers import Stream, message_events
from support.constants import ENV, REVERSE
from support.fixture_types import StartMitmdump, StartStage
from support.http_client import Wire, pseudo_headers
from support.one_rule import one_rule
from support.process_figures import memory_mb, open_files
from support.recorder import Recorder
from support.security_stage import BODY, RULES, Stage
from support.waiting import wait_until

pytestmark = pytest.mark.e2e

COUNT, BATCH = 2000, 50
SLOW = b"POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nx-slow: a"
# A process that has held much keeps some of it; what a second wave adds to the first is a leak.
MAX_GROWTH_MB = 24


def held_connections(opened: contextlib.ExitStack, stage: Stage, count: int) -> Iterator[socket.socket]:
    """Open connections that the proxy holds, in batches smaller than its queue: the kernel lets others wait a second."""
    pid = stage.proxy.process.pid
    before = open_files(pid)
    for number in range(count):
        yield opened.enter_context(socket.create_connection(("127.0.0.1", stage.proxy.ports[number % 2]), 60))
        if number % BATCH == BATCH - 1:
            wait_until(lambda: open_files(pid) > before + number, lambda: "not all are held")  # noqa: B023


@pytest.mark.usefixtures("many_files")
def test_thousands_of_connections_delay_no_client_and_leave_no_memory(stage_with: StartStage) -> None:
    stage = stage_with()
    pid = stage.proxy.process.pid
    assert stage.ask().status == 200
    wait_until(lambda: open_files(pid) < 100, lambda: "no quiet start")
    before, after = open_files(pid), []
    for _ in range(2):
        with contextlib.ExitStack() as opened:
            for number, client in enumerate(held_connections(opened, stage, COUNT)):
                if number % 4 == 1:
                    client.sendall(SLOW)
            assert open_files(pid) >= before + COUNT
            # Queued behind one of these it would wait for ever: none of them ends.
            assert stage.ask_anyway().status == 200
        wait_until(lambda: open_files(pid) <= before + 2, lambda: "connections are left")
        after.append(memory_mb(pid))
    assert after[1] - after[0] < MAX_GROWTH_MB, after


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="only glibc's malloc can be asked to return memory"
)
@pytest.mark.usefixtures("many_files")
def test_unfinished_heads_leave_no_memory_behind(stage_with: StartStage) -> None:
    stage = stage_with()
    pid = stage.proxy.process.pid
    assert stage.ask().status == 200
    before = memory_mb(pid)
    head = b"GET / HTTP/1.1\r\nHost: localhost\r\nx-slow: " + b"a" * (127 << 10)
    with contextlib.ExitStack() as opened:
        for client in held_connections(opened, stage, 600):
            client.sendall(head)
    wait_until(lambda: open_files(pid) < 100, lambda: "connections are left")
    wait_until(lambda: memory_mb(pid) - before < MAX_GROWTH_MB, lambda: "memory is held")


def test_a_thousand_pipelined_requests_are_answered_in_order_and_others_between_them(
    mitmdump: StartMitmdump,
) -> None:
    rules = one_rule(
        "https://gw.test", "models: {map: {a: b, b: c, other: d}}\nrespond: {models: true}", match="path: /**"
    )
    proxy = mitmdump(rules=rules, modes=REVERSE, env=ENV)

    def ask(name: str) -> bytes:
        return f"GET /v1/models/{name} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()

    names = random.Random(1).choices("ab", k=1000)
    with Wire(proxy.port) as many, Wire(proxy.port) as bystander:
        for each in (many, bystander):
            each.send(ask("other"))
            assert each.read_response().status == 200
        proxy.process.send_signal(signal.SIGSTOP)  # what both send arrives together
        many.send(b"".join(map(ask, names)))
        many._sock.shutdown(socket.SHUT_WR)
        bystander.send(ask("other"))
        proxy.process.send_signal(signal.SIGCONT)
        assert json.loads(bystander.read_response().body)["id"] == "other"
        assert [json.loads(many.read_response().body)["id"] for _ in names] == names
    served = re.findall(r"GET \S*/v1/models/(\w+)", proxy.output())
    assert len(served) == 1003
    assert served.index("other", 2) < 20


def test_every_request_of_a_client_that_leaves_is_ended(stage_with: StartStage) -> None:
    count = 12  # mitmproxy sends five at once to an HTTP/1 upstream; the others wait
    with Recorder(Stream(message_events("gw-model"))) as slow:
        rule = f"{{name: slow, match: {{host: slow.test}}, upstream: {slow.url}, auth: {{scheme: bearer, credential: gw}}}}"
        stage = stage_with(rules=f"{RULES}  - {rule}\n")
        client = stage.http2("slow.test")
        for _ in range(count):
            client.send_request(pseudo_headers("slow.test"), BODY)
        wait_until(lambda: len(slow.requests) == 5, lambda: "the upstream has no requests")
        client._wire.close()

        def ended() -> list[str]:
            lines = stage.log.read_text().splitlines() if stage.log.exists() else []
            return [entry["outcome"] for entry in map(json.loads, lines) if entry["rule"] == "slow"]

        wait_until(lambda: len(ended()) == count, lambda: "requests are left")
        assert ended() == ["client_left"] * count
