"""Paths into a JSON body as rules write them: `tools[*].name`."""

from __future__ import annotations

import re
from dataclasses import dataclass

Steps = tuple[str | int | None, ...]

_NAME = r"[^\s.\[\]\"']+"
_PATH = re.compile(rf"{_NAME}(?:\[(?:\*|\d{{1,6}})\])*(?:\.{_NAME}(?:\[(?:\*|\d{{1,6}})\])*)*")
_STEP = re.compile(rf"\[(\*|\d+)\]|({_NAME})")


@dataclass(frozen=True, slots=True)
class FieldPath:
    """A path into a body such as `tools[*].name`: keys, list positions, and None for every list item."""

    text: str
    steps: Steps

    def __str__(self) -> str:
        return self.text


def parse_path(text: str) -> FieldPath:
    """Return the path that a rule names. Raises ValueError with the expected form."""
    if not _PATH.fullmatch(text):
        raise ValueError('expected keys and list positions such as "a.b", "tools[*].name" or "tools[0]"')
    return FieldPath(text, tuple(_step(match) for match in _STEP.finditer(text)))


def _step(match: re.Match[str]) -> str | int | None:
    if match[2]:
        return match[2]
    return None if match[1] == "*" else int(match[1])
