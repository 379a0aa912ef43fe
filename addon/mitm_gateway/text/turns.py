"""Long work in turns, between which the caller may do other work."""

from collections.abc import Generator
from typing import TypeAlias, TypeVar

T = TypeVar("T")
Turns: TypeAlias = Generator[None, None, T]
"""Yields after each turn of at most a few milliseconds, and returns the result of the work."""


def finish(turns: Turns[T]) -> T:
    """Do all the work at once, and return its result."""
    while True:
        try:
            next(turns)
        except StopIteration as end:
            result: T = end.value
            return result
