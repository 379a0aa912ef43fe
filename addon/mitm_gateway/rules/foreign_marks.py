"""Marks of other notations, which YAML takes for text or rejects; the report names the mark as the cause."""

import re
from collections.abc import Iterable, Iterator, Sequence

from .problems import Pos, Problem

_KEYS = (
    "name|preset|match|upstream|auth|host|path|method|model|scheme|credential|env|file|set|remove|map|default"
)
_MARKS = (
    (r"^[ \t-]*(?P<mark>[\u00a0\u2000-\u200b\u202f\u3000\ufeff])", 'a space that is not plain (U+{code}); expected " "'),
    (r":(?P<mark>[\u00a0\u2000-\u200b\u202f\u3000])", 'a space that is not plain (U+{code}); expected " "'),
    (r"^[\w\s.-]*(?P<mark>\uff1a)", 'a full-width colon (U+{code}); expected ":" and a space'),
    (r"^\s*(?P<mark>[\u2010-\u2015\u2022\u2043\u2212\u00b7])", 'a dash that is no hyphen (U+{code}); expected "- "'),
    (r"^\s*(?P<mark>\* )\w+:", 'a list begins with a hyphen; expected "- "'),
    (r"^\s*(?P<mark>//|/\*)", 'comments begin with "#"'),
    (r"^\s*(?P<mark>```|~~~)", "a code fence, which is no YAML; remove the line"),
    (r"^\s*(?:- +)?[A-Za-z_]+ ?(?P<mark>=)(?!=)", 'an equals sign after a key; expected ":" and a space'),
    (r"^\s*(?:- +)?[a-z_]+(?P<mark>:)(?=[\w\[{\"'*$])", 'no space after ":"; expected one'),
    (rf"(?<!\$)[{{,]\s*(?:{_KEYS})(?P<mark>:)(?=[\w\[{{*$])", 'no space after ":"; expected one'),
)  # fmt: skip
_FOREIGN = tuple((re.compile(pattern), text) for pattern, text in _MARKS)
_LONGEST_LINE = 1000


def with_marks(problems: Iterable[Problem], text: bytes, *, is_unreadable: bool) -> Iterator[Problem]:
    """Yield the problems, and foreign marks on and right above their lines; in an unreadable file the marks alone."""
    lines = text.decode("utf-8-sig", "replace").split("\n")
    for problem in problems:
        pos = problem.pos
        found = pos and (_mark(lines, pos.line) or _mark(lines, pos.line - 1))
        if found:
            yield Problem(problem.file, *found)
        if not found or not is_unreadable:
            yield problem


def _mark(lines: Sequence[str], line: int) -> tuple[Pos, str] | None:
    if not 0 < line <= len(lines):
        return None
    text = lines[line - 1][:_LONGEST_LINE]
    for pattern, reason in _FOREIGN:
        if found := pattern.search(text):
            code = f"{ord(found['mark'][0]):04X}"
            return Pos(line, found.start("mark") + 1), reason.format(code=code)
    return None
