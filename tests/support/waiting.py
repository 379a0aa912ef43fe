"""Waiting for an event that sends no notice."""

import time
from collections.abc import Callable
from typing import TypeVar

_Found = TypeVar("_Found")
_POLL_S = 0.02


def wait_until(
    found: Callable[[], _Found], told: Callable[[], object] = lambda: "", timeout: float = 60.0
) -> _Found:
    """Call `found` until its result is true, and return that; `told` explains a timeout."""
    deadline = time.monotonic() + timeout
    while not (result := found()):
        if time.monotonic() > deadline:
            raise TimeoutError(told())
        time.sleep(_POLL_S)
    return result
