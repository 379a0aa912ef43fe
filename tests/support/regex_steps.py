"""Counts the steps of a backtracking regular expression engine, by walking the parsed expression as `re` does."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from re import _constants as op  # type: ignore[attr-defined]
from re import _parser  # type: ignore[attr-defined]
from typing import Any

_SINGLE = {op.LITERAL, op.NOT_LITERAL, op.ANY, op.IN}
_REPEATS = {op.MAX_REPEAT, op.MIN_REPEAT, op.POSSESSIVE_REPEAT}


class Steps:
    """One expression, with the number of steps that it has taken so far."""

    def __init__(self, pattern: re.Pattern[Any]) -> None:
        self.pattern = pattern
        self._tree = _parser.parse(pattern.pattern, pattern.flags & ~re.UNICODE & ~re.LOCALE | 0)
        self._fitting: dict[tuple[Any, ...], _Fitting] = {}
        self.count = 0
        self._text = ""

    def match(self, text: str, pos: int = 0) -> int | None:
        """Return the end of a match that begins at `pos`."""
        return next(self._ends(text, pos), None)

    def full_match(self, text: str) -> bool:
        """Report whether the whole text matches."""
        return any(end == len(text) for end in self._ends(text, 0))

    def search(self, text: str, pos: int = 0) -> tuple[int, int] | None:
        """Return the span of the first match that begins at `pos` or later."""
        for start in range(pos, len(text) + 1):
            self.count += 1
            if (end := self.match(text, start)) is not None:
                return start, end
        return None

    def find_all(self, text: str) -> list[tuple[int, int]]:
        """Return the spans of all matches that are not empty."""
        spans, pos = [], 0
        while found := self.search(text, pos):
            start, end = found
            if end > start:
                spans.append(found)
            pos = max(end, start + 1)
        return spans

    def _ends(self, text: str, pos: int) -> Iterator[int]:
        """Yield the ends of all matches that begin at `pos`, as they are found."""
        self._text = text
        with _deep_recursion():
            yield from self._sequence(self._tree, 0, pos)

    def _sequence(self, nodes: Any, at: int, pos: int) -> Iterator[int]:
        if at == len(nodes):
            yield pos
            return
        kind, arg = nodes[at]
        for end in self._node(kind, arg, pos):
            yield from self._sequence(nodes, at + 1, end)

    def _node(self, kind: Any, arg: Any, pos: int) -> Iterator[int]:
        self.count += 1
        if kind in _SINGLE:
            if self._fits(kind, arg, pos):
                yield pos + 1
        elif kind in _REPEATS:
            yield from self._repeat(kind, arg, pos)
        elif kind is op.SUBPATTERN:
            yield from self._sequence(arg[3], 0, pos)
        elif kind is op.BRANCH:
            for branch in arg[1]:
                yield from self._sequence(branch, 0, pos)
        elif kind is op.ATOMIC_GROUP:
            yield from self._first(arg, pos)
        elif kind in (op.ASSERT, op.ASSERT_NOT):
            if self._looks(arg[0], arg[1], pos) == (kind is op.ASSERT):
                yield pos
        elif kind is op.AT:
            if self._is_at(arg, pos):
                yield pos
        else:
            raise NotImplementedError(str(kind))

    def _first(self, nodes: Any, pos: int) -> list[int]:
        end = next(self._sequence(nodes, 0, pos), None)
        return [] if end is None else [end]

    def _repeat(self, kind: Any, arg: Any, pos: int) -> Iterator[int]:
        least, most, nodes = arg
        if len(nodes) == 1 and nodes[0][0] in _SINGLE:
            yield from self._single_repeat(kind, least, most, nodes[0], pos)
        elif kind is op.POSSESSIVE_REPEAT:
            ends = self._possessive(most, nodes, pos)
            if len(ends) > least:
                yield ends[-1]
        else:
            yield from self._general_repeat(kind, least, most, nodes, pos)

    def _possessive(self, most: int, nodes: Any, pos: int) -> list[int]:
        ends = [pos]
        while len(ends) <= most and (found := self._first(nodes, ends[-1])) and found[0] > ends[-1]:
            ends += found
        return ends

    def _single_repeat(self, kind: Any, least: int, most: int, node: Any, pos: int) -> Iterator[int]:
        fits, text, count = self._characters(*node), self._text, 0
        end = min(len(text), pos + (least if kind is op.MIN_REPEAT else most))
        while pos + count < end and fits[text[pos + count]]:
            count += 1
        self.count += count + 1
        if kind is op.MIN_REPEAT:
            while count >= least:
                yield pos + count
                count = count + 1 if count < most and self._fits(node[0], node[1], pos + count) else -1
        else:
            shortest = least if kind is op.MAX_REPEAT else count
            for kept in range(count, max(least, shortest) - 1, -1):
                self.count += 1
                yield pos + kept

    def _general_repeat(self, kind: Any, least: int, most: int, nodes: Any, pos: int) -> Iterator[int]:
        if kind is op.MIN_REPEAT and least <= 0:
            yield pos
        if most > 0:
            for end in self._sequence(nodes, 0, pos):
                if end > pos:
                    yield from self._general_repeat(kind, least - 1, most - 1, nodes, end)
        if kind is op.MAX_REPEAT and least <= 0:
            yield pos

    def _looks(self, direction: int, nodes: Any, pos: int) -> bool:
        if direction > 0:
            return bool(self._first(nodes, pos))
        start = pos - nodes.getwidth()[0]
        return start >= 0 and pos in self._sequence(nodes, 0, start)

    def _fits(self, kind: Any, arg: Any, pos: int) -> bool:
        self.count += 1
        return pos < len(self._text) and self._characters(kind, arg)[self._text[pos]]

    def _characters(self, kind: Any, arg: Any) -> "_Fitting":
        key = (kind, id(arg) if kind is op.IN else arg)
        if (known := self._fitting.get(key)) is None:
            known = self._fitting[key] = _Fitting(_as_pattern(kind, arg, self.pattern.flags))
        return known

    def _is_at(self, where: Any, pos: int) -> bool:
        text = self._text
        if where in (op.AT_BEGINNING, op.AT_BEGINNING_STRING):
            return pos == 0
        if where is op.AT_END_STRING:
            return pos == len(text)
        if where is op.AT_END:
            return text[pos:] in ("", "\n")
        before, after = (bool(re.match(r"\w", piece)) for piece in (text[pos - 1 : pos], text[pos : pos + 1]))
        return (before != after) == (where is op.AT_BOUNDARY)


class _Fitting(dict[str, bool]):
    """Whether each character that was asked for matches an expression for one character."""

    def __init__(self, one: re.Pattern[str]) -> None:
        super().__init__()
        self._one = one

    def __missing__(self, character: str) -> bool:
        self[character] = fits = self._one.match(character) is not None
        return fits


@contextmanager
def _deep_recursion() -> Iterator[None]:
    """Allow one call inside another for each character of a long text."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(50_000)
    try:
        yield
    finally:
        sys.setrecursionlimit(limit)


_CATEGORIES = {
    op.CATEGORY_DIGIT: r"\d", op.CATEGORY_NOT_DIGIT: r"\D", op.CATEGORY_SPACE: r"\s", op.CATEGORY_NOT_SPACE: r"\S",
    op.CATEGORY_WORD: r"\w", op.CATEGORY_NOT_WORD: r"\W",
}  # fmt: skip


def _as_pattern(kind: Any, arg: Any, flags: int) -> re.Pattern[str]:
    """Return an expression for one character."""
    if kind is op.ANY:
        text = "." if not flags & re.DOTALL else r"[\s\S]"
    elif kind is op.LITERAL:
        text = re.escape(chr(arg))
    elif kind is op.NOT_LITERAL:
        text = f"[^{re.escape(chr(arg))}]"
    else:
        text = f"[{''.join(_item(*item) for item in arg)}]"
    return re.compile(text, flags & re.IGNORECASE)


def _item(kind: Any, arg: Any) -> str:
    if kind is op.NEGATE:
        return "^"
    if kind is op.LITERAL:
        return re.escape(chr(arg))
    if kind is op.RANGE:
        return "-".join(re.escape(chr(code)) for code in arg)
    return _CATEGORIES[arg]


def is_bounded(pattern: re.Pattern[Any], width: int) -> bool:
    """Report whether no match is longer than this, so that a search takes bounded steps at each position."""
    return int(_parser.parse(pattern.pattern, pattern.flags & ~re.UNICODE).getwidth()[1]) <= width


def samples(pattern: re.Pattern[Any]) -> tuple[list[str], str]:
    """Return short texts that the alternatives are likely to match, and the characters that they mention."""
    characters: dict[str, None] = {}
    tree = _parser.parse(pattern.pattern, pattern.flags & ~re.UNICODE)
    texts = [_sample(tree, characters, number) for number in range(_alternatives(tree))]
    return list(dict.fromkeys(texts)), "".join(characters)


def _alternatives(nodes: Any) -> int:
    """Return the most alternatives in one place of an expression."""
    inside = [len(arg[1]) if kind is op.BRANCH else 1 for kind, arg in nodes]
    return max([1, *inside, *(_alternatives(each) for kind, arg in nodes for each in _parts(kind, arg))])


def _parts(kind: Any, arg: Any) -> list[Any]:
    if kind is op.BRANCH:
        return list(arg[1])
    part = {op.SUBPATTERN: 3, op.ATOMIC_GROUP: None}.get(kind, 2 if kind in _REPEATS else -1)
    return [] if part == -1 else [arg if part is None else arg[part]]


def _sample(nodes: Any, characters: dict[str, None], number: int) -> str:
    """Return a text with the alternative of this number, or the last one, in each place."""
    text = ""
    for kind, arg in nodes:
        parts = [_sample(each, characters, number) for each in _parts(kind, arg)]
        if parts:
            text += parts[min(number, len(parts) - 1)] * (max(arg[0], 1) if kind in _REPEATS else 1)
        elif kind in _SINGLE:
            character = _fitting(kind, arg)
            characters[character] = None
            text += character
    return text


def _fitting(kind: Any, arg: Any) -> str:
    if kind is op.LITERAL:
        return chr(arg)
    test = _as_pattern(kind, arg, re.DOTALL)
    candidates = chain("x0 ", map(chr, chain(range(0x250), range(0x2000, 0x10000))))
    return next(one for one in candidates if test.match(one))


class CountingPattern:
    """Stands in for an expression; counts the steps of each call in `taken` and returns what `re` returns."""

    taken = 0

    def __init__(self, pattern: re.Pattern[Any]) -> None:
        self._pattern = pattern
        self._steps = Steps(pattern)
        self.pattern, self.flags, self.groups = pattern.pattern, pattern.flags, pattern.groups

    def __getattr__(self, method: str) -> Any:
        function = getattr(self._pattern, method)

        def counted(*arguments: Any, **named: Any) -> Any:
            texts = [one for one in arguments if isinstance(one, str | bytes)]
            text = texts[-1] if isinstance(texts[-1], str) else texts[-1].decode("latin-1")
            start = next((one for one in arguments if isinstance(one, int)), 0)
            before = self._steps.count
            self._run(method, text, start)
            CountingPattern.taken += self._steps.count - before
            return function(*arguments, **named)

        return counted

    def _run(self, method: str, text: str, start: int) -> None:
        match method:
            case "match":
                self._steps.match(text, start)
            case "fullmatch":
                self._steps.full_match(text[start:])
            case "search":
                self._steps.search(text, start)
            case _:
                self._steps.find_all(text[start:])
