"""Changes to mitmproxy's parts that can be taken back."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

_ABSENT = object()


class Patches:
    """What was changed, and how it is undone: the last change first."""

    def __init__(self) -> None:
        self._undo: list[Callable[[], None]] = []

    def __bool__(self) -> bool:
        return bool(self._undo)

    def set(self, owner: Any, name: str, value: object) -> None:
        """Replaces an attribute; undoing takes an instance's own away again, so that the class shows."""
        before = vars(owner).get(name, _ABSENT)
        setattr(owner, name, value)
        if before is _ABSENT:
            self._undo.append(lambda: delattr(owner, name))
        else:
            self._undo.append(lambda: setattr(owner, name, before))

    def on_undo(self, action: Callable[[], None]) -> None:
        """Has something else done when the changes are undone."""
        self._undo.append(action)

    def undo(self) -> None:
        """Puts mitmproxy's own parts back."""
        while self._undo:
            self._undo.pop()()


def expect(function: Callable[..., object], *names: str) -> None:
    """Raises TypeError where these are not a function's parameters."""
    if list(inspect.signature(function).parameters) != list(names):
        raise TypeError(function.__name__)
