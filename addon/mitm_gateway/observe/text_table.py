"""A table as lines of text that fit a width."""

from collections.abc import Sequence
from dataclasses import dataclass

_GAP = "  "
_LEAST_NAME = 8


@dataclass(frozen=True, slots=True)
class Column:
    """A column. Those with a rank may be left out; the highest rank goes first."""

    title: str
    is_text: bool = False
    rank: int = 0


def aligned(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int | None) -> list[str]:
    """Return a line of titles and a line for each row."""
    texts = [[column.title, *(row[at] for row in rows)] for at, column in enumerate(columns)]
    kept = list(range(len(columns)))
    widths = [max(map(len, cells)) for cells in texts]
    while width is not None and _total(widths, kept) > width:
        ranked = [at for at in kept if columns[at].rank]
        if not ranked:
            break
        kept.remove(max(ranked, key=lambda at: columns[at].rank))
    if width is not None:
        _narrow(columns, widths, kept, width)
    lines = zip(*(_cells(texts[at], widths[at], is_text=columns[at].is_text) for at in kept), strict=True)
    return [_GAP.join(cells).rstrip() for cells in lines]


def _total(widths: Sequence[int], kept: Sequence[int]) -> int:
    return sum(widths[at] for at in kept) + len(_GAP) * (len(kept) - 1)


def _narrow(columns: Sequence[Column], widths: list[int], kept: Sequence[int], width: int) -> None:
    """Shorten the widest names until the line fits."""
    names = [at for at in kept if columns[at].is_text]
    while names and _total(widths, kept) > width and max(widths[at] for at in names) > _LEAST_NAME:
        widths[max(names, key=lambda at: widths[at])] -= 1


def _cells(cells: Sequence[str], width: int, *, is_text: bool) -> list[str]:
    if not is_text:
        return [cell.rjust(width) for cell in cells]
    return [(cell if len(cell) <= width else f"{cell[: width - 1]}…").ljust(width) for cell in cells]
