"""Bodies read in both ways: checked by simdjson, and walked."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from mitm_gateway import body
from mitm_gateway.body import BodyError, edit, scan

Told = tuple[str | None, frozenset[str], bytes | str] | str
TOO_DEEP = "the body is nested too deep"


@contextmanager
def walked() -> Iterator[None]:
    """As if simdjson were not installed."""
    with patch.object(body, "simdjson", None):
        yield


def told(raw: bytes, **edits: Any) -> Told:
    """What scan and edit make of a body, or the reason why they refuse it."""
    try:
        found = scan(raw)
    except BodyError as fault:
        return _reason(fault)
    try:
        return found.model, found.keys, edit(found, **edits)
    except BodyError as fault:
        return found.model, found.keys, _reason(fault)


def assert_same_both_ways(raw: bytes, **edits: Any) -> None:
    """Holds that nothing but the depth that is still taken tells the two ways apart."""
    quick = told(raw, **edits)
    with walked():
        slow = told(raw, **edits)
    assert quick == slow or TOO_DEEP in (slow, slow[-1], quick[-1])


def _reason(fault: BodyError) -> str:
    assert fault.__cause__ is None
    assert fault.__context__ is None or fault.__suppress_context__
    return str(fault)
