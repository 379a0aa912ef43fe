"""Watches files by polling, and tells of a change once the file has stopped changing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

logger = logging.getLogger(__name__)

# Two looks that agree are needed, so an edit is taken up after 0.4 to 0.8 s; the promise is 2 s.
POLL_S = 0.4
Stamp = tuple[int, ...] | None


def stamp_of(path: Path) -> Stamp:
    """What changes when a file changes; None where it is not there."""
    try:
        status = path.stat()
    except OSError:
        return None
    return (status.st_mode, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


class Watcher:
    """Calls `changed` for each settled change of a file, from the event loop's own thread."""

    def __init__(self, path: Path, changed: Callable[[], object]) -> None:
        self._path = path
        self._changed = changed
        self._told = self._seen = stamp_of(path)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begins to look."""
        self._task = asyncio.get_running_loop().create_task(self._watch())

    def stop(self) -> None:
        """Ends looking."""
        if self._task is not None:
            self._task.cancel()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(POLL_S)
            try:
                self.look()
            # A fault now must not end looking for good; being cancelled from outside does.
            except (Exception, asyncio.CancelledError) as fault:
                if (task := asyncio.current_task()) is not None and task.cancelling():
                    raise
                logger.warning("%s could not be taken up: %s", self._path, type(fault).__name__)

    def look(self) -> None:
        """One look at the file."""
        stamp = stamp_of(self._path)
        settled, self._seen = stamp == self._seen, stamp
        if settled and stamp != self._told:
            self._told = stamp
            self._changed()
