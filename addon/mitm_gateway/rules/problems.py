"""Faults in a rules file: one line each, with a position that an editor can jump to."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

from ..text.printable import one_line
from ..text.redact import masked_text

# A path into the data of a file: keys and list positions.
Loc = tuple[str | int, ...]


@dataclass(frozen=True, slots=True, order=True)
class Pos:
    """A position in a text: line and column, counted from 1."""

    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Mistake:
    """A fault at a path of the file, or at the key of that path."""

    loc: Loc
    text: str
    at_key: bool = False

    def below(self, loc: Loc) -> Mistake:
        """Return the same mistake in the part at this path."""
        return Mistake((*loc, *self.loc), self.text, self.at_key)


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault of a rules file. Its text never contains a value that could be a secret."""

    file: str
    pos: Pos | None
    text: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", masked_text(self.text))

    def __str__(self) -> str:
        file = one_line(self.file)
        place = f"{file}:{self.pos.line}:{self.pos.column}" if self.pos else file
        return f"{place}: {self.text}"


class RulesError(Exception):
    """An unusable rules file, with every problem found, in file order."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))


def in_file_order(problems: Iterable[Problem]) -> list[Problem]:
    """Return the problems by position, without duplicates; those of the whole file first."""
    return sorted(dict.fromkeys(problems), key=lambda problem: problem.pos or Pos(0, 0))


# Longer words are not typing errors, and comparing them takes time.
_LONGEST_WORD = 64


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the known word that a misspelt one most likely means; case is ignored."""
    spellings = {spelling.lower(): spelling for spelling in known}
    if len(word) > _LONGEST_WORD:
        return None
    found = difflib.get_close_matches(word.lower(), spellings, n=1, cutoff=0.6)
    return spellings[found[0]] if found else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return the suggestion for a misspelt word, with a leading space; empty if there is none."""
    found = nearest(word, known)
    return f' (did you mean "{found}"?)' if found else ""
