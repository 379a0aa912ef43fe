"""The log file of requests: one JSON line each, private to its owner; writing never holds up the event loop."""

import contextlib
import logging
import logging.handlers
import os
import threading
from collections import deque
from io import TextIOWrapper
from pathlib import Path

logger = logging.getLogger(__name__)

# How long lines are gathered before they are written together.
_GATHERING_S = 0.05


class LogFile:
    """A log of lines, written by a separate thread and opened again when it was moved away."""

    def __init__(self, path: Path) -> None:
        self._lines: deque[str] = deque()
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._handler = _LineHandler(path)
        self._thread = threading.Thread(target=self._run, name="gateway_log", daemon=True)
        self._thread.start()

    def write(self, line: str) -> None:
        """Queue a line."""
        self._lines.append(line)
        if not self._wake.is_set():
            self._wake.set()

    def close(self) -> None:
        """Write the queued lines, then close."""
        self._closing.set()
        self._wake.set()
        self._thread.join()
        # Lines that a full disk did not take are flushed once more, in vain.
        with contextlib.suppress(OSError):
            self._handler.close()

    def _run(self) -> None:
        while not self._closing.is_set():
            self._wake.wait()
            # A thread that wakes for each line would take the interpreter lock from the event loop each time.
            self._closing.wait(_GATHERING_S)
            self._wake.clear()
            self._write_queued()

    def _write_queued(self) -> None:
        lines = [self._lines.popleft() for _ in range(len(self._lines))]
        if lines:
            text = "\n".join(lines)
            self._handler.handle(logging.LogRecord("gateway", logging.INFO, "", 0, text, None, None))


class _LineHandler(logging.handlers.WatchedFileHandler):
    """Appends lines to a file that only its owner may read. A full disk loses lines, and is logged once."""

    def __init__(self, path: Path) -> None:
        self._warned = threading.Event()
        super().__init__(path, encoding="utf-8")
        self.setFormatter(logging.Formatter("%(message)s"))

    def _open(self) -> TextIOWrapper:
        def private(name: str, flags: int) -> int:
            return os.open(name, flags, 0o600)

        return open(self.baseFilename, "a", encoding="utf-8", opener=private)

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record; the library leaves faults of reopening to the caller."""
        try:
            super().emit(record)
        except OSError:
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the library's name
        """Log once that lines are being lost."""
        if not self._warned.is_set():
            self._warned.set()
            logger.warning(
                "gateway_log: %s cannot be written; requests continue without it", self.baseFilename
            )
