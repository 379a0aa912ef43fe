"""A script for mitmproxy under test: the number of tasks in the file `TEST_TASKS`, renewed ten times a second.

SIGUSR1 has it give back what it does not need: garbage, and what the allocator holds ready.
"""

import asyncio
import ctypes
import gc
import os
import signal
import sys
from pathlib import Path

_INTERVAL_S = 0.1


def running() -> None:
    """Begins to count."""
    draft = Path(os.environ["TEST_TASKS"] + ".new")
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, give_back)

    def count() -> None:
        draft.write_text(str(len(asyncio.all_tasks(loop))))
        draft.replace(os.environ["TEST_TASKS"])
        loop.call_later(_INTERVAL_S, count)

    count()


def give_back() -> None:
    """Frees what nobody holds; a file says that it is done."""
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)
    Path(os.environ["TEST_TASKS"] + ".freed").touch()
