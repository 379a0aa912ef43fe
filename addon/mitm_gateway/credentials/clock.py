"""A clock that goes on while the machine sleeps: what expires in an hour has expired when a laptop wakes up."""

import time
from typing import Final

# `time.monotonic` stops meanwhile on Linux and macOS. macOS's CLOCK_MONOTONIC does not; Windows has neither.
_CLOCK: Final[int | None] = getattr(time, "CLOCK_BOOTTIME", getattr(time, "CLOCK_MONOTONIC", None))


def elapsed_s() -> float:
    """Return seconds since a fixed moment."""
    return time.monotonic() if _CLOCK is None else time.clock_gettime(_CLOCK)
