"""Work counted in steps instead of seconds, so that a busy machine cannot change the result."""

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

MAX_RATIO = 3  # of the work on twice as much


def work(run: Callable[[], object]) -> int:
    """Return the number of Python lines and calls that `run` executes, calls into C included."""
    steps = 0

    def count(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal steps
        steps += 1
        return count

    tracer, profiler = sys.gettrace(), sys.getprofile()
    sys.settrace(count)
    sys.setprofile(count)
    try:
        run()
    finally:
        sys.setprofile(profiler)
        sys.settrace(tracer)
    return steps


def assert_linear(run: Callable[[int], object], size: int) -> None:
    """Assert that twice the size takes less than three times the work."""
    run(size)  # caches
    assert work(lambda: run(2 * size)) < MAX_RATIO * work(lambda: run(size))


def ratio(work: Callable[[str], int], once: str, repeated: str, size: int) -> float:
    """Return the work on a text of twice this size as a multiple of the work on one of this size."""
    n = max(1, size // len(repeated))
    short, long = (work(once + repeated * count + "\x01") for count in (n, 2 * n))
    return long / max(short, 1)
