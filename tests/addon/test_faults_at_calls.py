"""Two faults at any two calls inside the gateway: no byte of the request gets out unedited, and no key."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest

from support.constants import GW, PACKAGE
from support.layers import ANSWER, BODY, KEY, LINE, REST, UPSTREAM, WAYS, Connection, Gateway

pytestmark = [
    pytest.mark.exhaustive,
    pytest.mark.skipif(
        sys.version_info < (3, 12), reason="Python 3.11 crashes where a tracing function raises"
    ),
    pytest.mark.filterwarnings("ignore:coroutine:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
REQUEST = b"\r\n".join((LINE, KEY, REST, BODY))
INSIDE = str(PACKAGE)
FAULTS = (RuntimeError, asyncio.CancelledError)
# The calls of a refusal and of the final check; behind them, the end of a request is settled.
FOLLOWING = 16


class Calls:
    """Counts the calls inside the gateway from 1, and fails at two of them.

    Python drops a function that traces or profiles when that raises, so each of the two gives one fault.
    """

    def __init__(self, fault: type[BaseException] = RuntimeError, first: int = 0, second: int = 0) -> None:
        self.names: list[str] = []
        self._fault, self._first, self._second = fault, first, second
        self._count = 0

    def __enter__(self) -> Calls:
        sys.settrace(self._trace)
        sys.setprofile(self._profile if self._second else None)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)
        sys.setprofile(None)

    def _trace(self, frame: FrameType, _event: str, _value: object) -> None:
        if frame.f_code.co_filename.startswith(INSIDE):
            self.names.append(frame.f_code.co_qualname)
            if len(self.names) == self._first:
                raise self._fault

    def _profile(self, frame: FrameType, event: str, _value: object) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(INSIDE):
            self._count += 1
            if self._count == self._second:
                raise self._fault


class Asked(Gateway):
    """A gateway that is sent one request again and again; `calls` are those of a request without a fault."""

    calls: list[str]
    whole: bytes

    def learn(self) -> None:
        """Send the request until its calls are always the same, as caches are filled, and note them."""
        for _ in range(5):
            with Calls() as calls:
                connection = self.exchange(REQUEST, ANSWER, 4096, **WAYS["tunnel"])
        self.calls, self.whole = calls.names, connection.sent[UPSTREAM]

    def ask(self, fault: type[BaseException], first: int, second: int = 0) -> Connection | None:
        """Send the request with these faults; assert that nothing got out, or the request as its rule sends it."""
        try:
            with Calls(fault, first, second):
                connection = self.exchange(REQUEST, ANSWER, 4096, **WAYS["tunnel"])
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
    monkeypatch.setenv("TEST_GW_KEY", GW)
    with asyncio.Runner() as runner:
        gateway = Asked(tmp_path, runner)
        gateway.learn()
        yield gateway
        gateway.close()


@pytest.mark.parametrize("fault", FAULTS)
def test_two_faults_at_any_calls_let_no_byte_out_unedited(asked: Asked, fault: type[BaseException]) -> None:
    assert {"check_admission", "decide", "outgoing_fields", "scan", "body_bytes", "_check_whole"} <= {
        *asked.calls
    }
    for first in asked.places:
        for second in range(first, first + FOLLOWING):
            if connection := asked.ask(fault, first, second if second > first else 0):
                asked.check(connection, breaks_answer=True)
    asked.serves_the_next()
