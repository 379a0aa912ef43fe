"""Matching: the first rule in file order that covers a request takes it.

The index only narrows the rules by host, it never decides. The rules that cover a host, path and method are
cached for the next request.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from ..wire.request import RequestHead
from .document import Document
from .fields import HeaderTest
from .patterns import Glob
from .problems import Mistake, Problem
from .schema import Credential, Match, Rule

_MAX_HOST = 253
_MAX_REMEMBERED = 512


@dataclass(frozen=True, slots=True)
class DependsOnModel:
    """Undecided: the rule depends on the model in the body."""


NEEDS_BODY: Final = DependsOnModel()


@dataclass(frozen=True, slots=True)
class Asked:
    """The model that the client asks for; `name` is None if the request names none."""

    name: str | None


class RuleSet:
    """The compiled rules of one file. Immutable: a reload creates a new one."""

    def __init__(
        self,
        rules: tuple[Rule, ...],
        credentials: Mapping[str, Credential] | None = None,
        unmatched: str = "auto",
        file: str = "rules.yaml",
        listed_models: tuple[str, ...] = (),
        document: Document | None = None,
    ) -> None:
        self.file = file
        self.document = document
        self.rules = rules
        self.credentials = dict(credentials or {})
        self.unmatched = unmatched
        self.listed_models = listed_models  # for `GET /v1/models`, besides those of the rules
        self._exact: dict[str, list[int]] = {}
        self._by_tail: dict[str, list[int]] = {}
        for number, rule in enumerate(rules):
            for pattern in rule.match.host:
                index, key = (
                    (self._exact, pattern.name) if pattern.is_exact else (self._by_tail, pattern.tail)
                )
                index.setdefault(key, []).append(number)
        # Paths and methods are few in practice; the bounds keep a scanner from filling the memory.
        self._remembered = lru_cache(maxsize=2048)(self._find_covering)

    def problem(self, mistake: Mistake) -> Problem:
        """Return a mistake in these rules, with its position if they are from a file."""
        return Problem(self.file, self.document.pos_of(mistake) if self.document else None, mistake.text)

    def knows_host(self, host: str, port: int) -> bool:
        """Return whether any rule covers this host."""
        return bool(self.on_host(host, port))

    def on_host(self, host: str, port: int) -> tuple[Rule, ...]:
        """Return the rules that cover this host, in file order."""
        return self._covering(host, port, None, None)

    def covering(self, head: RequestHead) -> list[Rule]:
        """Return the rules that cover a request, whatever its model, in file order."""
        return [
            rule
            for rule in self._covering(head.host, head.port, head.matched_path, head.verb)
            if not (head.has_odd_path and rule.match.path is not None)
            and (not rule.match.header or _headers_fit(rule.match.header, head))
        ]

    def find(self, head: RequestHead, asked: Asked | None = None) -> Rule | DependsOnModel | None:
        """Return the rule that takes a request; `asked` is None before the model is known."""
        for rule in self.covering(head):
            if rule.match.model is None:
                return rule
            if asked is None:
                return NEEDS_BODY
            if rule.match.covers_model(asked.name):
                return rule
        return None

    def _covering(self, host: str, port: int, path: str | None, method: str | None) -> tuple[Rule, ...]:
        is_short = len(host) + len(path or "") + len(method or "") <= _MAX_REMEMBERED
        return (self._remembered if is_short else self._find_covering)(host, port, path, method)

    def _find_covering(self, host: str, port: int, path: str | None, method: str | None) -> tuple[Rule, ...]:
        """Return the rules that cover host, path and method, in file order; without a path all on the host."""
        numbers = {number for key in _tails(host) for number in self._by_tail.get(key, ())}
        numbers.update(self._exact.get(host, ()))
        return tuple(
            rule
            for rule in (self.rules[number] for number in sorted(numbers))
            if any(pattern.covers(host, port) for pattern in rule.match.host)
            and (path is None or _place_fits(rule.match, path, method or ""))
        )


def _tails(host: str) -> Iterator[str]:
    if len(host) > _MAX_HOST:  # no name; only patterns for any host cover it
        host = ""
    yield host
    while host:
        host = host.partition(".")[2]
        yield host


def _place_fits(match: Match, path: str, method: str) -> bool:
    if match.path is not None and not any(pattern.covers(path) for pattern in match.path):
        return False
    return match.method is None or method in match.method


def _headers_fit(wanted: Mapping[str, HeaderTest], head: RequestHead) -> bool:
    return all(_header_fits(test, head.all(name.lower())) for name, test in wanted.items())


def _header_fits(wanted: bool | tuple[Glob, ...], values: tuple[str, ...]) -> bool:
    """Return whether any of a header's fields fits, as Envoy decides it."""
    if isinstance(wanted, bool):
        return wanted == bool(values)
    return any(glob.covers(value) for value in values for glob in wanted)
