"""Prices of models: the dated lists of this package, and the user's own; the cost of a request.

A model has a price only under its exact name. If the price of a part of a request is unknown, so is its cost.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...llm.calls import identify
from ...rules.document import packaged_files, parse
from ...rules.model_map import base_name
from ...wire.addresses import normal_path

if TYPE_CHECKING:
    from .price_list import Price, PriceList

_MILLION = 1_000_000
_COUNTS = (
    "input_tokens", "output_tokens", "cache_read_tokens", "cache_creation_tokens", "cache_creation_long_tokens",
)  # fmt: skip


@cache
def built_in() -> tuple[PriceList, ...]:
    """Return the lists of this package."""
    from .price_list import PriceList

    files = packaged_files(__package__).values()
    return tuple(PriceList.model_validate(parse(file.read_bytes(), file.name).data) for file in files)


def is_free(entry: Mapping[str, Any]) -> bool:
    """Return whether the demo gateway or a recording answered the request in a log entry."""
    return entry.get("upstream") == "demo" or entry.get("replayed") is True


class Prices:
    """The prices in force: the user's list, if any, before those of this package."""

    def __init__(self, own: PriceList | None = None) -> None:
        self._own = own
        self.find = lru_cache(maxsize=2048)(self._find)

    @staticmethod
    def of_file(path: Path | None) -> Prices:
        """Return the prices with the user's file. Raises RulesError if it is faulty."""
        if path is None:
            return Prices()
        from .price_list import read_price_list

        return Prices(read_price_list(path))

    def _find(self, model: str, host: str = "") -> Price | None:
        """Return the price of a model at a host; None if it is unknown."""
        lists = (*([self._own] if self._own else []), *built_in())
        name = base_name(model)
        return next((price for each in lists if (price := each.find(name, host))), None)

    def cost(self, entry: Mapping[str, Any]) -> float | None:
        """Return the cost in US dollars of the request in a log entry; None if it is unknown.

        A response that broke off, or that was served in another tier than the standard one, has no known cost; one that
        no vendor served has none.
        """
        if is_free(entry):
            return None
        model = entry.get("model_sent", entry.get("model"))
        if not isinstance(model, str) or "service_tier" in entry or entry.get("outcome", "ok") != "ok":
            return None
        counts = [entry.get(name) or 0 for name in _COUNTS]
        if not any(counts) or (price := self.find(model, _host(entry))) is None:
            return None
        fresh, output, read, written, written_long = counts
        if _includes_cached(entry):
            fresh = max(0, fresh - read - written)
        now = price.of(fresh + read + written)
        if written_long and now.cache_write_long is None:
            return None
        return (
            fresh * now.input
            + output * now.output
            + read * _first(now.cache_read, now.input)
            + (written - written_long) * _first(now.cache_write, now.input)
            + written_long * _first(now.cache_write_long)
        ) / _MILLION


def _first(*prices: float | None) -> float:
    return next((price for price in prices if price is not None), 0.0)


def _host(entry: Mapping[str, Any]) -> str:
    """Return the host that served a request."""
    upstream = entry.get("upstream")
    place = upstream if isinstance(upstream, str) and "://" in upstream else entry.get("host", "")
    return _host_of(place) if isinstance(place, str) else ""


@lru_cache(maxsize=1024)
def _host_of(place: str) -> str:
    authority = place.partition("://")[2].partition("/")[0] or place
    host, colon, port = authority.rpartition(":")
    return (host if colon and port.isdecimal() else authority).lower()


def _includes_cached(entry: Mapping[str, Any]) -> bool:
    host, method, path = (str(entry.get(key, "")) for key in ("host", "method", "path"))
    return identify(host, method, normal_path(path.partition("?")[0])).api.tokens.input_includes_cached
