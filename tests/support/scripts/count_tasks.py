"""A script for mitmproxy under test: the number of tasks in the file `TEST_TASKS`, renewed ten times a second.

SIGUSR1 has it collect garbage and write into `TEST_TASKS.blocks` how many pieces of memory Python then has in use.
"""

import asyncio
import gc
import os
import signal
import sys
from pathlib import Path

_INTERVAL_S = 0.1


def running() -> None:
    """Start counting."""
    draft = Path(os.environ["TEST_TASKS"] + ".new")
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, count_blocks)

    def count() -> None:
        draft.write_text(str(len(asyncio.all_tasks(loop))))
        draft.replace(os.environ["TEST_TASKS"])
        loop.call_later(_INTERVAL_S, count)

    count()


def count_blocks() -> None:
    """Write the number of live blocks: without garbage, and without memory that an allocator keeps ready."""
    gc.collect()
    draft = Path(os.environ["TEST_TASKS"] + ".draft")
    draft.write_text(str(sys.getallocatedblocks()))
    draft.replace(os.environ["TEST_TASKS"] + ".blocks")
