"""A file watcher that polls, and reports a change once the file has settled."""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from ..wire.refusal import ANY_FAULT, is_cancelled

logger = logging.getLogger(__name__)

# Two equal polls in a row report a change, 0.4 to 0.8 s after the edit; the promise is 2 s.
POLL_S = 0.4
Stamp = tuple[int, ...] | None


def stamp_of(path: Path) -> Stamp:
    """Return the status that changes with the file; None if the file is missing."""
    try:
        status = path.stat()
    except OSError:
        return None
    return (status.st_mode, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


class Watcher:
    """Calls `changed` for each settled change of a file, in the running event loop, until it is stopped."""

    def __init__(self, path: Path, changed: Callable[[], object]) -> None:
        self._path = path
        self._changed = changed
        self._reported = self._seen = stamp_of(path)
        self._task = asyncio.get_running_loop().create_task(self._watch())

    def stop(self) -> None:
        """Stop polling."""
        self._task.cancel()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(POLL_S)
            try:
                self.poll()
            # A fault must not end the watcher.
            except ANY_FAULT as fault:
                if is_cancelled(fault):
                    raise
                logger.warning("cannot reload %s: %s", self._path, type(fault).__name__)

    def poll(self) -> None:
        """Poll the file once."""
        stamp = stamp_of(self._path)
        settled, self._seen = stamp == self._seen, stamp
        if settled and stamp != self._reported:
            self._reported = stamp
            self._changed()
