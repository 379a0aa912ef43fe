"""Notices of `run` about a session: requests that bypassed the gateway, refusals and hints."""

import json
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any

from ..clients.catalogue import Client
from ..clients.environment import Changes
from ..text.printable import visible
from .common import say
from .gateway_process import GatewayProcess

_LOOK_S = 1.0
# Half a minute: long enough for a slow start, short enough to be of use.
_LOOKS_FOR_A_REQUEST = 30
_LONGEST_LINE = 400
_UPSTREAM_FAILED = {
    "upstream_error": "the upstream answered with {}",
    "upstream_broke_off": "the upstream's response broke off",
    "timed_out": "the upstream did not answer in time",
}


class LoggedRequests:
    """The requests that rules took since the session began, from the file of `gateway_log`."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._start = file.stat().st_size if file.exists() else 0

    def entries(self) -> list[Mapping[str, Any]]:
        """Return the log's entries of this session."""
        if not self.file.exists():
            return []
        with self.file.open("rb") as lines:
            lines.seek(self._start)
            return [json.loads(line) for line in lines if line.endswith(b"\n")]


@dataclass(frozen=True, slots=True)
class SessionReport:
    """Notices about one session of a client."""

    program: str
    requests: LoggedRequests
    client: Client
    changes: Changes
    intercepts: bool
    log: Path
    said: set[str] = field(default_factory=set)
    """The hints that were printed."""

    @contextmanager
    def watching(self, gateway: GatewayProcess) -> Iterator[None]:
        """Report a client that fails from its first request on, and one that sends none for half a minute."""
        ended = threading.Event()
        watch = threading.Thread(target=self._watch, args=(gateway, ended), daemon=True)
        watch.start()
        try:
            yield
        finally:
            ended.set()
            watch.join()

    def _watch(self, gateway: GatewayProcess, ended: threading.Event) -> None:
        """Look once a second until the client's first request has been answered well or was reported."""
        looks = 0
        while not ended.wait(_LOOK_S):
            entries, looks = self.requests.entries(), looks + 1
            if looks == _LOOKS_FOR_A_REQUEST and not entries and not gateway.has_connections():
                say(f"no request has reached the gateway so far. {self._reason()}")
            if any(not (entry.get("refusal") or entry.get("hint")) for entry in entries):
                return
            if hint := next((entry["hint"] for entry in entries if entry.get("hint")), None):
                # Clients retry silently for minutes. One that draws its own screen shows the error there.
                if not sys.stdin.isatty():
                    self._say_hint(hint)
                return

    def print_summary(self, *, has_connected: bool) -> None:
        """Print refusals, failures and a hint after the client's end; nothing if all went well."""
        entries = self.requests.entries()
        if not entries and self.intercepts and has_connected:
            say(
                f"{self.program} connected to the gateway, but no rule took a request. If {self.program} should have "
                "called a model, no rule covers the host or path, or it does not trust the gateway's certificate; "
                f"see {self.log}"
            )
            return
        if not entries:
            say(f"{self.program} ended without a request through the gateway. {self._reason()}")
            return
        refusals = Counter(_failures(entries))
        if refusals:
            total, (reason, _) = refusals.total(), refusals.most_common(1)[0]
            say(_cut(f"{total} of {len(entries)} requests failed, most often: {reason}; see {self.log}"))
        for hint, _ in Counter(entry["hint"] for entry in entries if entry.get("hint")).most_common(1):
            self._say_hint(hint)

    def _say_hint(self, hint: str) -> None:
        if hint not in self.said:
            self.said.add(hint)
            say(_cut(f"hint: {hint}"))

    def _reason(self) -> str:
        if self.client.bypass:
            return f"{self.client.title}: {self.client.bypass}"
        if self.intercepts:
            return f"If {self.program} should have called a model, it ignores HTTPS_PROXY, or no rule covers the host"
        names = ", ".join(name for name, value in self.changes.set.items() if "127.0.0.1:" in value)
        return (
            f"If {self.program} should have called a model, it does not read {names}; "
            f"try `mitm-gateway run --intercept -- {self.program}`"
        )


def _failures(entries: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield the reasons of refusals and, if the last request failed upstream, of failures upstream.

    Refused WebSockets do not count if their client continued over HTTP.
    """
    went_on = any(not entry.get("refusal") for entry in entries)
    is_lost = entries[-1].get("outcome") in _UPSTREAM_FAILED
    for entry in entries:
        if refusal := entry.get("refusal"):
            if not (went_on and entry.get("status") == HTTPStatus.UPGRADE_REQUIRED):
                yield refusal
        elif is_lost and (outcome := entry.get("outcome")) in _UPSTREAM_FAILED:
            yield _UPSTREAM_FAILED[outcome].format(entry.get("status"))


def _cut(text: str) -> str:
    shown = visible(text).replace("\n", " ")
    return shown if len(shown) <= _LONGEST_LINE else shown[: _LONGEST_LINE - 1] + "…"
