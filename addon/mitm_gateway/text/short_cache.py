"""A cache for functions of text from peers that no peer can fill with long keys."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import TypeVar

Text = TypeVar("Text", str, bytes)
Result = TypeVar("Result")

MAX_KEYS = 4096
# Longer than any name in use; with four bytes a character, all keys together need at most 2 MiB.
MAX_KEY_LENGTH = 128


def remember_short(function: Callable[[Text], Result]) -> Callable[[Text], Result]:
    """Cache the results of a pure function for short texts; longer ones are computed each time."""
    remembered = lru_cache(maxsize=MAX_KEYS)(function)

    @wraps(function)
    def cached(text: Text) -> Result:
        return remembered(text) if len(text) <= MAX_KEY_LENGTH else function(text)

    return cached
