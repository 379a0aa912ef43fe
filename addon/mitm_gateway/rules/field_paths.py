"""Paths into a JSON body as rules write them: `tools[*].name`, `tools[type=web_search_*]`."""

import re
from dataclasses import dataclass

from .patterns import Glob

_NAME = r"[^\s.\[\]\"'=]+"
_ITEM = rf"\[(?:\*|[0-9]{{1,6}}|{_NAME}=[^\[\]]+)\]"
_KEY = r"[^\s.\[\]\"']+"
_PATH = re.compile(rf"{_KEY}(?:{_ITEM})*(?:\.{_KEY}(?:{_ITEM})*)*")
_STEP = re.compile(
    rf"\[(?:(?P<any>\*)|(?P<place>[0-9]+)|(?P<key>{_NAME})=(?P<glob>[^\[\]]+))\]|(?P<name>{_KEY})"
)


@dataclass(frozen=True, slots=True)
class Selector:
    """The list items that are objects with this key and a text that matches the glob."""

    key: str
    glob: Glob


PathStep = str | int | Selector | None
PathSteps = tuple[PathStep, ...]


@dataclass(frozen=True, slots=True)
class FieldPath:
    """A path into a body: keys, list positions, selectors of list items, and None for every list item."""

    text: str
    steps: PathSteps

    def __str__(self) -> str:
        return self.text


def parse_path(text: str) -> FieldPath:
    """Return the path that a rule names. Raises ValueError with the expected form."""
    if not _PATH.fullmatch(text) or text.startswith(("$.", "$[", "/")):
        raise ValueError(
            'expected keys and list positions such as "a.b", "tools[*].name", "tools[0]" or "tools[type=web_*]"'
        )
    return FieldPath(text, tuple(map(_step, _STEP.finditer(text))))


def _step(found: re.Match[str]) -> PathStep:
    if found["name"]:
        return found["name"]
    if found["any"]:
        return None
    return int(found["place"]) if found["place"] else Selector(found["key"], Glob(found["glob"]))
