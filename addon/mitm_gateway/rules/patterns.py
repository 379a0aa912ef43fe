"""Globs and host patterns: what a rule's `match` is made of. No user writes a regular expression."""

# A glob is matched literal by literal. What is kept between two literals is where the text read so far may
# end, never a choice to come back to: the time grows with the text and with the glob, not with their powers.

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache

from ..wire.addresses import normal_host, parse_port, with_plain_dots

# Stand in for the stars of a glob that is itself matched by another one: no text of a request holds them.
_STAR, _STARS = "\x00", "\x01"
_STAND_INS = re.compile("[\x00\x01]")


@dataclass(frozen=True, slots=True)
class Glob:
    """A text in which `*` stands for any characters; upper and lower case differ."""

    text: str

    @property
    def is_exact(self) -> bool:
        """Whether it has no star."""
        return "*" not in self.text

    def covers(self, text: str) -> bool:
        """Whether the text fits."""
        if self.is_exact:
            return self.text == text
        first, *others, last = _literals(self.text)
        if len(text) < len(first) + len(last) or not text.startswith(first) or not text.endswith(last):
            return False
        # A literal at its first place leaves most to those behind it.
        end, limit = len(first), len(text) - len(last)
        for literal in others:
            start = text.find(literal, end, limit)
            if start < 0:
                return False
            end = start + len(literal)
        return True

    def contains(self, other: Glob) -> bool:
        """Whether all that the other covers is covered here too; False where that is not certain."""
        if _STAND_INS.search(other.text):
            return self == other
        return self.covers(re.sub(r"\*+", _STARS, other.text))


@lru_cache(maxsize=4096)
def _literals(glob: str) -> list[str]:
    return re.split(r"\*+", glob)


@dataclass(frozen=True, slots=True)
class PathGlob:
    """A path pattern: `*` stays inside a segment, `**` crosses segments."""

    text: str

    @property
    def is_exact(self) -> bool:
        """Whether it has no star."""
        return "*" not in self.text

    def covers(self, path: str) -> bool:
        """Whether the path, without its query, fits."""
        if self.is_exact:
            return self.text == path
        first, steps = _steps(self.text)
        if not path.startswith(first):
            return False
        ends = [len(first)]
        for crosses, literal in steps[:-1]:
            ends = list(_next_ends(path, ends, literal, crosses=crosses))
            if not ends:
                return False
        crosses, literal = steps[-1]
        start = len(path) - len(literal)
        if not path.endswith(literal) or start < ends[0]:
            return False
        return crosses or _segment_end(path, max(end for end in ends if end <= start)) >= start

    def contains(self, other: PathGlob) -> bool:
        """Whether all that the other covers is covered here too; False where that is not certain."""
        if _STAND_INS.search(other.text):
            return self == other
        return self.covers(re.sub(r"\*\*+", _STARS, other.text).replace("*", _STAR))


@lru_cache(maxsize=4096)
def _steps(glob: str) -> tuple[str, list[tuple[bool, str]]]:
    """The literal at the start; then for each star whether it crosses segments, and the literal behind it."""
    first, *others = re.split(r"(\*+)", glob)
    return first, [(len(star) > 1, literal) for star, literal in zip(others[::2], others[1::2], strict=True)]


def _segment_end(path: str, start: int) -> int:
    slash = path.find("/", start)
    end = len(path) if slash < 0 else slash
    stars = path.find(_STARS, start, end)
    return end if stars < 0 else stars


def _next_ends(path: str, ends: list[int], literal: str, *, crosses: bool) -> Iterator[int]:
    """The first place in each segment where the text may end after one more star and literal.

    What a later place in the same segment can lead to, the first one can too.
    """
    slash = literal.find("/")
    if crosses:
        start = path.find(literal, ends[0])
        while start >= 0:
            yield start + len(literal)
            next_start = start if slash >= 0 else _segment_end(path, start)
            start = path.find(literal, next_start + 1)
        return
    for end in ends:
        segment_end = _segment_end(path, end)
        # A star stops before the slash, so the first slash of the literal has to be that one.
        start = path.find(literal, end, segment_end) if slash < 0 else segment_end - slash
        if start >= end and path.startswith(literal, start):
            yield start + len(literal)


@dataclass(frozen=True, slots=True)
class HostPattern:
    """A host to match: a name, `*.domain` (any depth below), `*` for a label, `*` alone; maybe a port."""

    labels: tuple[str, ...]
    below: bool = False
    port: int | None = None
    text: str = field(default="", compare=False)

    @property
    def is_any(self) -> bool:
        """Whether every host fits."""
        return self.below and not self.labels

    @property
    def is_exact(self) -> bool:
        """Whether it names one host."""
        return not self.below and "*" not in self.labels

    @property
    def name(self) -> str:
        """The name that an exact pattern covers."""
        return ".".join(self.labels)

    @property
    def tail(self) -> str:
        """The literal end of the name, which every covered host shares."""
        tail: list[str] = []
        for label in reversed(self.labels):
            if label == "*":
                break
            tail.insert(0, label)
        return ".".join(tail)

    @classmethod
    def parse(cls, text: str) -> HostPattern:
        """A pattern from its text. Raises ValueError that says what is wrong."""
        name, port = _split_port(with_plain_dots(text))
        if name == "*":
            return cls((), below=True, port=port, text=text)
        below = name.startswith("*.")
        labels = name[2:] if below else name
        if any("*" in label and label != "*" for label in labels.split(".")):
            raise ValueError('has "*" inside a label; expected it for a whole one, as in "a.*.example.com"')
        try:
            # A star is no letter of a name, so the rest is checked with a letter in its place.
            checked = _labels(normal_host(labels.replace("*", "x")))
        except ValueError:
            raise ValueError(_NOT_A_HOST) from None
        if below and _is_address(checked[-1]):
            raise ValueError("is not a host; nothing stands below an address")
        if "*" in labels:
            stars = [label == "*" for label in labels.removesuffix(".").split(".")]
            checked = tuple("*" if star else label for label, star in zip(checked, stars, strict=True))
        return cls(checked, below, port, text)

    def covers(self, host: str, port: int) -> bool:
        """Whether a host in normal form, asked for on this port, fits."""
        if self.port is not None and port != self.port:
            return False
        if self.is_exact:
            return host == self.name
        labels = _labels(host)
        count = len(self.labels)
        if self.below:
            if len(labels) <= count and not self.is_any:
                return False
            labels = labels[len(labels) - count :] if count else ()
        return len(labels) == count and all(
            mine in ("*", theirs) for mine, theirs in zip(self.labels, labels, strict=True)
        )

    def contains(self, other: HostPattern) -> bool:
        """Whether every host that the other covers is covered here too."""
        if self.port not in (None, other.port):
            return False
        if self.is_any:
            return True
        if other.below and not self.below:
            return False
        mine, theirs = self.labels, other.labels
        if self.below:
            # One label more than the domain itself; a pattern below a domain always brings it.
            if len(theirs) + other.below <= len(mine):
                return False
            theirs = theirs[len(theirs) - len(mine) :]
        return len(mine) == len(theirs) and all(
            own in ("*", their) for own, their in zip(mine, theirs, strict=True)
        )


_NOT_A_HOST = 'is not a host; expected a name such as "api.example.com", without scheme, path or blanks'


def _is_address(name: str) -> bool:
    return ":" in name or name.rpartition(".")[2].isdigit()


def _labels(host: str) -> tuple[str, ...]:
    # An address has no labels: its dots and colons do not divide domains.
    return (host,) if _is_address(host) else tuple(host.split("."))


def _split_port(text: str) -> tuple[str, int | None]:
    if text.startswith("["):
        name, bracket, rest = text.partition("]")
        name, colon, port = name + bracket, rest[:1], rest[1:]
    else:
        name, colon, port = text.partition(":")
    if not colon:
        return name, None
    if colon != ":" or "/" in port:
        raise ValueError(_NOT_A_HOST)
    try:
        return name, parse_port(port)
    except ValueError:
        raise ValueError("has no valid port; expected a number from 1 to 65535") from None
