"""The end of a start with a fault: mitmproxy exits with status 1 if an error is logged before it runs."""

import atexit
import logging
import os
import time
from collections.abc import Iterable

from mitmproxy import ctx

logger = logging.getLogger(__name__)


def end_start(problems: Iterable[str]) -> None:
    """Log each problem, and have the start end with the reasons on standard error."""
    # mitmproxy 11 has just started its native threads when a faulty start ends the program; one that then calls into a
    # finalizing interpreter crashes the process (7 of 40 starts on a busy machine), and the exit status is lost.
    atexit.register(time.sleep, 0.1)
    # mitmdump and mitmweb log to standard output, and say on standard error only that there were errors.
    if (check := ctx.master.addons.get("errorcheck")) and not _is_one_file(1, 2):
        check.repeat_errors_on_stderr = True
    for problem in problems:
        logger.error(problem)


def _is_one_file(first: int, second: int) -> bool:
    try:
        return os.path.sameopenfile(first, second)
    except OSError:  # one of them is closed
        return False
