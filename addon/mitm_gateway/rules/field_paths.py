"""Places in a JSON body as rules name them: `tools[*].name`."""

from __future__ import annotations

import re
from dataclasses import dataclass

Steps = tuple[str | int | None, ...]

_NAME = r"[^\s.\[\]\"']+"
_PATH = re.compile(rf"{_NAME}(?:\[(?:\*|\d{{1,6}})\])*(?:\.{_NAME}(?:\[(?:\*|\d{{1,6}})\])*)*")
_STEP = re.compile(rf"\[(\*|\d+)\]|({_NAME})")


@dataclass(frozen=True, slots=True)
class FieldPath:
    """A place in a body such as `tools[*].name`: keys, element numbers, and None for every element."""

    text: str
    steps: Steps

    def __str__(self) -> str:
        return self.text


def parse_path(text: str) -> FieldPath:
    """The path that a rule names; ValueError tells the expected form."""
    if not _PATH.fullmatch(text):
        raise ValueError('expected keys and elements such as "a.b", "tools[*].name" or "tools[0]"')
    return FieldPath(text, tuple(_step(match) for match in _STEP.finditer(text)))


def _step(match: re.Match[str]) -> str | int | None:
    if match[2]:
        return match[2]
    return None if match[1] == "*" else int(match[1])
