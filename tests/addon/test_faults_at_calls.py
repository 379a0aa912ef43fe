"""Two faults at any two calls inside the gateway: no byte of the request gets out unedited, and no key."""

import asyncio
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import CodeType
from typing import Any, Self

import pytest

from support.constants import GW, PACKAGE
from support.layers import ANSWER, REQUEST, UPSTREAM, Connection, Gateway

pytestmark = [
    pytest.mark.exhaustive,
    pytest.mark.skipif(sys.version_info < (3, 12), reason="needs sys.monitoring"),
    pytest.mark.filterwarnings("ignore:coroutine:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
INSIDE = str(PACKAGE)
FAULTS = (RuntimeError, asyncio.CancelledError)
# The calls of a refusal and of the final check; behind them, the end of a request is settled.
FOLLOWING = 16
monitoring: Any = getattr(sys, "monitoring", None)


class Calls:
    """Counts the calls of this thread inside the gateway from 1, and fails at some of them."""

    def __init__(self, fault: type[BaseException] = RuntimeError, *fails_at: int) -> None:
        self.names: list[str] = []
        self._fault, self._fails_at, self._thread = fault, fails_at, threading.get_ident()

    def __enter__(self) -> Self:
        events = (monitoring.events.PY_START, monitoring.events.PY_RESUME)
        monitoring.use_tool_id(monitoring.PROFILER_ID, "faults")
        for event in events:
            monitoring.register_callback(monitoring.PROFILER_ID, event, self._called)
        monitoring.set_events(monitoring.PROFILER_ID, sum(events))
        return self

    def __exit__(self, *_: object) -> None:
        monitoring.set_events(monitoring.PROFILER_ID, 0)
        monitoring.free_tool_id(monitoring.PROFILER_ID)

    def _called(self, code: CodeType, _offset: int) -> object:
        if not code.co_filename.startswith(INSIDE):
            return monitoring.DISABLE
        if threading.get_ident() != self._thread:
            return None
        self.names.append(code.co_qualname)
        if len(self.names) in self._fails_at:
            raise self._fault
        return None


class Asked(Gateway):
    """A gateway that is sent one request again and again; `calls` are those of a request without a fault."""

    calls: list[str]
    whole: bytes

    def learn(self) -> None:
        """Send the request until its calls are always the same, as caches are filled, and note them."""
        for _ in range(5):
            with Calls() as calls:
                connection = self.exchange(REQUEST, ANSWER)
        self.calls, self.whole = calls.names, connection.sent[UPSTREAM]

    def ask(self, fault: type[BaseException], first: int, second: int = 0) -> Connection | None:
        """Send the request with these faults; assert that nothing got out, or the request as its rule sends it."""
        try:
            with Calls(fault, first, second):
                connection = self.exchange(REQUEST, ANSWER)
        except FAULTS:  # mitmproxy itself has failed, and ends the connection
            return None
        connection.sent = {address: data for address, data in connection.sent.items() if data}
        sent = connection.sent.get(UPSTREAM, b"")
        assert self.whole.startswith(sent), (self.calls[first - 1], second)
        assert not sent or first > self.calls.index("perform"), (self.calls[first - 1], second)
        return connection

    @property
    def places(self) -> list[int]:
        """The first call of each function up to the one that writes the head."""
        calls = self.calls[: self.calls.index("Requests.outgoing")]
        return [calls.index(name) + 1 for name in dict.fromkeys(calls)]


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Asked]:
    monkeypatch.setenv("GW_KEY", GW)
    with asyncio.Runner() as runner:
        gateway = Asked(tmp_path, runner)
        gateway.learn()
        yield gateway
        gateway.close()


def test_two_faults_at_any_calls_let_no_byte_out_unedited(asked: Asked) -> None:
    assert {
        "check_admission", "decide", "outgoing_fields", "scan_in_turns", "body_bytes", "_check_whole",
    } <= {*asked.calls}  # fmt: skip
    for number, first in enumerate(asked.places):
        for second in range(first, first + FOLLOWING):
            fault = FAULTS[(number + second) % 2]  # each pair has one kind, each place both
            if connection := asked.ask(fault, first, second if second > first else 0):
                asked.check(connection, breaks_answer=True)
    asked.serves_the_next()
