"""Globs and host patterns, from which a rule's `match` is built; users never write a regular expression."""

# A glob is matched literal by literal. Between two literals the code keeps the positions where the text read
# so far may end, never a choice to return to: the time is linear in the text and in the glob.

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache

from ..wire.addresses import AmbiguousHost, is_address, normal_host, parse_port, with_plain_dots

# Replace the stars of a glob that is itself matched by another one: no text of a request contains them.
_STAR, _STARS = "\x00", "\x01"
_STAND_INS = re.compile("[\x00\x01]")


@dataclass(frozen=True, slots=True)
class Glob:
    """A text in which `*` stands for any characters; upper and lower case differ."""

    text: str

    @property
    def is_exact(self) -> bool:
        """True for a glob without a star."""
        return "*" not in self.text

    @property
    def literals(self) -> tuple[str, ...]:
        """The texts around the stars; several stars in a row are one."""
        return tuple(_literals(self.text))

    def covers(self, text: str) -> bool:
        """Return whether the text matches."""
        return self.captures(text) is not None

    def captures(self, text: str) -> tuple[str, ...] | None:
        """Return the texts that the stars match, each as short as possible from the left; None for no match."""
        if self.is_exact:
            return () if self.text == text else None
        first, *others, last = _literals(self.text)
        if len(text) < len(first) + len(last) or not text.startswith(first) or not text.endswith(last):
            return None
        # The first position of a literal leaves most text to those after it.
        end, limit = len(first), len(text) - len(last)
        found: list[str] = []
        for literal in others:
            start = text.find(literal, end, limit)
            if start < 0:
                return None
            found.append(text[end:start])
            end = start + len(literal)
        return (*found, text[end:limit])

    def contains(self, other: Glob) -> bool:
        """Return whether this certainly covers everything that the other covers."""
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
        """True for a glob without a star."""
        return "*" not in self.text

    def covers(self, path: str) -> bool:
        """Return whether a path without its query matches."""
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
        """Return whether this certainly covers everything that the other covers."""
        if _STAND_INS.search(other.text):
            return self == other
        return self.covers(re.sub(r"\*\*+", _STARS, other.text).replace("*", _STAR))


@lru_cache(maxsize=4096)
def _steps(glob: str) -> tuple[str, list[tuple[bool, str]]]:
    """Return the first literal; then for each star whether it crosses segments, and the literal after it."""
    first, *others = re.split(r"(\*+)", glob)
    return first, [(len(star) > 1, literal) for star, literal in zip(others[::2], others[1::2], strict=True)]


def _segment_end(path: str, start: int) -> int:
    slash = path.find("/", start)
    end = len(path) if slash < 0 else slash
    stars = path.find(_STARS, start, end)
    return end if stars < 0 else stars


def _next_ends(path: str, ends: list[int], literal: str, *, crosses: bool) -> Iterator[int]:
    """Yield the first position in each segment where the text may end after one more star and literal.

    A later position in the same segment leads to nothing that the first one does not lead to.
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
        # A star stops before the slash, so the first slash of the literal must be that one.
        start = path.find(literal, end, segment_end) if slash < 0 else segment_end - slash
        if start >= end and path.startswith(literal, start):
            yield start + len(literal)


@dataclass(frozen=True, slots=True)
class HostPattern:
    """A host to match: a name, `*.domain` (any depth below), `*` in or for a label, `*` alone; with an optional port."""

    labels: tuple[str, ...]
    below: bool = False
    port: int | None = None
    text: str = field(default="", compare=False)

    @property
    def is_any(self) -> bool:
        """True for `*` alone, which matches every host."""
        return self.below and not self.labels

    @property
    def is_exact(self) -> bool:
        """True for a pattern that names one host."""
        return not self.below and not any("*" in label for label in self.labels)

    @property
    def name(self) -> str:
        """The host name of an exact pattern."""
        return ".".join(self.labels)

    @property
    def tail(self) -> str:
        """The literal end that all matching hosts share."""
        tail: list[str] = []
        for label in reversed(self.labels):
            if "*" in label:
                break
            tail.insert(0, label)
        return ".".join(tail)

    @classmethod
    def parse(cls, text: str) -> HostPattern:
        """Return the pattern of a text. Raises ValueError with the reason."""
        name, port = _split_port(with_plain_dots(text))
        if name == "*":
            return cls((), below=True, port=port, text=text)
        if "**" in name:
            raise ValueError('contains "**"; expected a form such as "*.example.com", which covers any depth')
        below = name.startswith("*.")
        labels = name[2:] if below else name
        try:
            # A star is not valid in a name, so the rest is checked with a letter instead.
            checked = _labels(normal_host(labels.replace("*", "x")))
        except AmbiguousHost:
            raise
        except ValueError:
            raise ValueError(_SEVERAL_HOSTS if "," in text else _NOT_A_HOST) from None
        if below and is_address(checked[-1]):
            raise ValueError("is not a host; an address has no names below it")
        if "*" in labels:
            given = labels.removesuffix(".").lower().split(".")
            checked = tuple(own if "*" in own else label for label, own in zip(checked, given, strict=True))
        return cls(checked, below, port, text)

    def covers(self, host: str, port: int) -> bool:
        """Return whether a host in normal form matches on this port."""
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
            mine in ("*", theirs) or Glob(mine).covers(theirs)
            for mine, theirs in zip(self.labels, labels, strict=True)
        )

    def contains(self, other: HostPattern) -> bool:
        """Return whether this covers every host that the other covers."""
        if self.port not in (None, other.port):
            return False
        if self.is_any:
            return True
        if other.below and not self.below:
            return False
        mine, theirs = self.labels, other.labels
        if self.below:
            # One label more than the domain itself; a pattern below a domain always has it.
            if len(theirs) + other.below <= len(mine):
                return False
            theirs = theirs[len(theirs) - len(mine) :]
        return len(mine) == len(theirs) and all(
            Glob(own).contains(Glob(their)) for own, their in zip(mine, theirs, strict=True)
        )


_SEVERAL_HOSTS = 'is not a host; expected a list such as ["api.example.com", "api.example.org"]'
_NOT_A_HOST = 'is not a host; expected a name such as "api.example.com", without scheme, path or spaces'


def _labels(host: str) -> tuple[str, ...]:
    # An address has no labels: its dots and colons do not separate domains.
    return (host,) if is_address(host) else tuple(host.split("."))


def _is_ipv6(text: str) -> bool:
    try:
        return ":" in normal_host(text)
    except ValueError:
        return False


def _split_port(text: str) -> tuple[str, int | None]:
    if text.startswith("["):
        name, bracket, rest = text.partition("]")
        name, colon, port = name + bracket, rest[:1], rest[1:]
    elif text.count(":") > 1 and _is_ipv6(text):
        raise ValueError('is an IPv6 address without brackets; expected a form such as "[::1]"')
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
