"""A cache for functions of text from peers that no peer can fill with long keys."""

from collections.abc import Callable
from typing import TypeVar

Key = TypeVar("Key", bound=str | bytes)
Result = TypeVar("Result")

MAX_CACHED = 4096
# Longer than any name in use; with four bytes a character, all keys together need at most 2 MiB.
MAX_CACHED_LENGTH = 128


def remember_short(function: Callable[[Key], Result]) -> Callable[[Key], Result]:
    """Cache the results of a pure function for short texts; longer ones are computed each time."""
    return _Results(function).__getitem__


class _Results(dict[Key, Result]):
    """Results by text. A lookup takes no Python call: each request has dozens of names of headers to look up."""

    def __init__(self, function: Callable[[Key], Result]) -> None:
        super().__init__()
        self._function: Callable[[Key], Result] = function

    def __missing__(self, text: Key) -> Result:
        result = self._function(text)
        if len(text) <= MAX_CACHED_LENGTH:
            if len(self) >= MAX_CACHED:
                self.clear()
            self[text] = result
        return result
