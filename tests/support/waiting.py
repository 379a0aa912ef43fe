"""Waiting for an event that sends no notice."""

import time
from collections.abc import Callable
from typing import TypeVar

_Found = TypeVar("_Found")
_POLL_S = 0.02


def wait_until(
    found: Callable[[], _Found | None],
    told: Callable[[], object] = lambda: "",
    timeout: float = 60.0,
    has_ended: Callable[[], object] = lambda: False,
) -> _Found:
    """Call `found` until its result is true, and return that; `told` explains a timeout, and an end before it."""
    deadline = time.monotonic() + timeout
    while not (result := found()):
        if time.monotonic() > deadline or (has_ended() and not found()):
            raise TimeoutError(told())
        time.sleep(_POLL_S)
    return result
