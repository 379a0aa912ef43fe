"""The work of Lua functions, counted in steps instead of seconds."""

import re
from functools import cache
from pathlib import Path
from typing import Any

from support.lua import Library
from support.regex_steps import Steps

_CLASSES = {
    "a": "A-Za-z", "c": r"\0-\x1f\x7f", "d": "0-9", "s": r"\t-\r ", "w": "A-Za-z0-9", "x": "A-Fa-f0-9", "z": r"\0",
}  # fmt: skip
_PARTS = re.compile(
    r"%(?P<escaped>.)|\[(?P<set>\^?\]?(?:%.|[^]])*)\]|(?P<lazy>-)|(?P<end>\$\Z)|(?P<same>[*+?.()])|(?P<literal>.)",
    re.DOTALL,
)
_PARTS_OF_SET = re.compile(r"%(.)|([\\[])", re.DOTALL)


def counted(code: str) -> Any:
    """Return a function that returns the work of a call; the code returns the called one."""
    counting = Path(__file__).with_suffix(".lua").read_text()
    made = Library().execute(
        f"local called = (function() {code} end)()\nreturn function(...)\n"
        f"local counted = (function(...)\n{counting}\nend)(...)\nreturn counted(called)\nend"
    )
    return made(pattern_steps)


def pattern_steps(pattern: bytes, data: bytes, at: int, is_all: bool, first: int) -> int:
    """Return the steps that Lua takes for its first match of a pattern, or for all; the first one begins at `first`."""
    steps, text = _counter(pattern.decode("latin-1")), data.decode("latin-1")
    is_anchored, before = pattern.startswith(b"^"), steps.count
    found = steps.pattern.match(text, at - 1) if is_anchored else steps.pattern.search(text, at - 1)
    assert (found.start() + 1 if found else 0) == first, f"{pattern!r} is translated wrongly: {steps.pattern}"
    if is_anchored:
        steps.match(text, at - 1)
    elif is_all:
        steps.find_all(text)
    else:
        steps.search(text, at - 1)
    return steps.count - before


@cache
def _counter(pattern: str) -> Steps:
    return Steps(re.compile(_PARTS.sub(_translated, pattern.removeprefix("^")), re.DOTALL))


def _translated(part: re.Match[str]) -> str:
    """Return a part of a Lua pattern as a part of a regular expression."""
    text = part[part.lastgroup or 0]
    match part.lastgroup:
        case "escaped" if text.lower() in _CLASSES:
            return f"[{'^' * text.isupper()}{_CLASSES[text.lower()]}]"
        case "set":
            return f"[{_PARTS_OF_SET.sub(_of_set, text)}]"
        case "lazy":
            return "*?"
        case "end":
            return r"\Z"
        case "same":
            return text
    return re.escape(text)


def _of_set(part: re.Match[str]) -> str:
    return _CLASSES.get(part[1]) or re.escape(part[1] or part[2])
