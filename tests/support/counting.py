"""A script for mitmproxy under test that keeps the number of tasks in the file `TEST_TASKS`, renewed ten times a second."""

import asyncio
import os
from pathlib import Path

_INTERVAL_S = 0.1


def running() -> None:
    """Begins to count."""
    draft = Path(os.environ["TEST_TASKS"] + ".new")
    loop = asyncio.get_running_loop()

    def count() -> None:
        draft.write_text(str(len(asyncio.all_tasks(loop))))
        draft.replace(os.environ["TEST_TASKS"])
        loop.call_later(_INTERVAL_S, count)

    count()
