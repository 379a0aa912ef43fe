"""Where records go: the flow's comment and marker, the log file, the running sums."""

from __future__ import annotations

import contextlib
import logging
import logging.handlers
import os
import threading
from collections import deque
from collections.abc import Mapping
from io import TextIOWrapper
from pathlib import Path

from mitmproxy import http
from pydantic_core import to_json

from ..exchange.record import Record
from ..observe.stats import Stats
from .reporting import Reporter

logger = logging.getLogger(__name__)

# Where in a flow's metadata the facts of the Gateway view are.
FACTS = "gateway"

# A hint names the model, and clients make such names up.
_MAX_HINTS = 200

# How long lines are gathered before they are written together.
_GATHERING_S = 0.05

MARKERS = {
    "ok": ":white_check_mark:",
    "refused": ":no_entry:",
    "upstream error": ":x:",
    "aborted": ":scissors:",
}


class Recorder:
    """Notes each handled flow. Writing the log never holds up the event loop."""

    def __init__(self) -> None:
        self._log: LogFile | None = None
        self._path: Path | None = None
        self._told_hints: set[tuple[str | None, str]] = set()
        self._reporter = Reporter()
        self.report_to = self._reporter.report_to
        self.stats = Stats()

    def write_to(self, path: Path | None) -> None:
        """Sends records to this file from now on, or to none. Raises OSError where it cannot be opened."""
        if path == self._path:
            return
        opened = LogFile(path) if path else None
        self._close_log()
        self._log, self._path = opened, path

    def close(self) -> None:
        """Writes and delivers what is left."""
        self._close_log()
        self._reporter.close()

    def _close_log(self) -> None:
        if self._log is not None:
            self._log.close()
        self._log = self._path = None

    def progress(self, flow: http.HTTPFlow, record: Record) -> None:
        """Puts a record of a flow that is under way where people look."""
        self._show(flow, record, record.log_entry(), "")

    def note(self, flow: http.HTTPFlow, record: Record) -> None:
        """Puts the record of a flow that has ended where people look."""
        entry = record.log_entry()
        self._show(flow, record, entry, MARKERS[record.outcome])
        self._tell_hint(record)
        if self._log is not None:
            self._log.write(to_json(entry).decode())
        self.stats.add(entry)
        self._reporter.note(record)

    def _show(self, flow: http.HTTPFlow, record: Record, entry: Mapping[str, object], marker: str) -> None:
        flow.comment = record.comment()
        flow.marked = marker
        flow.metadata[FACTS] = record.facts(entry)

    def _tell_hint(self, record: Record) -> None:
        """Logs a hint once for each rule: clients repeat what fails."""
        is_new = record.hint is not None and (record.rule, record.hint) not in self._told_hints
        if record.hint and is_new and len(self._told_hints) < _MAX_HINTS:
            self._told_hints.add((record.rule, record.hint))
            logger.warning("%s: answered with %s: %s", record.rule, record.status, record.hint)


class LogFile:
    """A log of lines, written by a thread of its own and opened again when it was moved away."""

    def __init__(self, path: Path) -> None:
        self._lines: deque[str] = deque()
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._handler = _LineHandler(path)
        self._thread = threading.Thread(target=self._run, name="gateway_log", daemon=True)
        self._thread.start()

    def write(self, line: str) -> None:
        """Queues a line."""
        self._lines.append(line)
        if not self._wake.is_set():
            self._wake.set()

    def close(self) -> None:
        """Writes what is queued, then closes."""
        self._closing.set()
        self._wake.set()
        self._thread.join()
        # What a full disk did not take is flushed once more, in vain.
        with contextlib.suppress(OSError):
            self._handler.close()

    def _run(self) -> None:
        while not self._closing.is_set():
            self._wake.wait()
            # A thread that woke for each line would take the interpreter from the event loop each time.
            self._closing.wait(_GATHERING_S)
            self._wake.clear()
            self._write_queued()

    def _write_queued(self) -> None:
        lines = [self._lines.popleft() for _ in range(len(self._lines))]
        if lines:
            text = "\n".join(lines)
            self._handler.handle(logging.LogRecord("gateway", logging.INFO, "", 0, text, None, None))


class _LineHandler(logging.handlers.WatchedFileHandler):
    """Appends lines to a file that only its owner may read; a full disk is said once and loses lines only."""

    def __init__(self, path: Path) -> None:
        self._warned = threading.Event()
        super().__init__(path, encoding="utf-8")
        self.setFormatter(logging.Formatter("%(message)s"))

    def _open(self) -> TextIOWrapper:
        def private(name: str, flags: int) -> int:
            return os.open(name, flags, 0o600)

        return open(self.baseFilename, "a", encoding="utf-8", opener=private)

    def emit(self, record: logging.LogRecord) -> None:
        """Writes a record; the library leaves faults of reopening to the caller."""
        try:
            super().emit(record)
        except OSError:
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the library's name
        """Says once that lines are being lost."""
        if not self._warned.is_set():
            self._warned.set()
            logger.warning("gateway_log: %s cannot be written; requests go on without it", self.baseFilename)
