"""Faster access to values that are read dozens of times a request: headers, dataclass fields."""

from __future__ import annotations

import typing
from collections.abc import Iterator
from dataclasses import fields
from functools import cache
from itertools import chain
from operator import attrgetter
from typing import Any

from mitmproxy import hooks, http
from mitmproxy.coretypes import multidict

from ...text.short_cache import remember_short
from ..patch import Patches, Unexpected


def plain_headers(patches: Patches) -> None:
    """Look a header up in one loop."""
    headers = http.Headers
    if headers.__getitem__ is not multidict._MultiDict.__getitem__ or "get" in vars(headers):
        raise Unexpected("http.Headers")

    make = headers.__init__

    def init(self: Any, fields: Any = (), **headers: Any) -> None:
        pairs = [(name, value) for name, value in fields]
        if headers or not set(map(type, chain.from_iterable(pairs))) <= {bytes}:
            make(self, pairs, **headers)
        else:
            self.fields = tuple(pairs)

    lowered = remember_short(_lowered)

    def values(self: Any, name: str | bytes) -> list[str]:
        wanted = lowered(name)
        length = len(wanted)
        return [
            value.decode("utf-8", "surrogateescape")
            for key, value in self.fields
            if len(key) == length and key.lower() == wanted
        ]

    def get(self: Any, key: str | bytes, default: Any = None) -> Any:
        found = values(self, key)
        return ", ".join(found) if found else default

    def contains(self: Any, key: str | bytes) -> bool:
        return bool(values(self, key))

    patches.set(headers, "__init__", init)
    patches.set(headers, "get_all", values)
    patches.set(headers, "get", get)
    patches.set(headers, "__contains__", contains)


def _lowered(name: str | bytes) -> bytes:
    return (name if isinstance(name, bytes) else http._always_bytes(name)).lower()


def plain_checks(patches: Patches) -> None:
    """Check a message's field types, and list a hook's arguments, without inspecting the class each time."""
    check = http.MessageData.__post_init__
    accepted: set[tuple[type, ...]] = set()

    def post_init(self: Any) -> None:
        values = _values(self.__class__)(self)
        kinds = (self.__class__, *map(type, values))
        if kinds not in accepted:
            if not all(map(isinstance, values, _kinds(self.__class__))):
                check(self)  # type: ignore[no-untyped-call]  # raises with mitmproxy's message
            accepted.add(kinds)

    patches.set(http.MessageData, "__post_init__", post_init)
    patches.set(hooks.Hook, "args", lambda self: [getattr(self, name) for name in _names(self.__class__)])


@cache
def _names(kind: type) -> tuple[str, ...]:
    return tuple(field.name for field in fields(kind))


@cache
def _values(kind: type) -> attrgetter[tuple[Any, ...]]:
    return attrgetter(*_names(kind))


def _kinds(kind: type) -> Iterator[tuple[type, ...]]:
    """Return the permitted types of a dataclass's fields."""
    for field in fields(kind):
        kinds = typing.get_args(field.type) or (field.type,)
        yield (*kinds, int) if float in kinds else kinds
