"""The head of a request as the core sees it: read once from the host program, never changed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Literal

from .addresses import has_odd_segments, normal_path

Mode = Literal["regular", "reverse", "transparent"]
Fields = tuple[tuple[bytes, bytes], ...]


def text(value: bytes) -> str:
    """Header bytes as text; what is not UTF-8 survives the way back through `raw`."""
    return value.decode("utf-8", "surrogateescape")


@lru_cache(maxsize=4096)
def lower_name(name: bytes) -> str:
    """A header's name as it is compared."""
    return text(name).lower()


def raw(value: str) -> bytes:
    """Text as header bytes, the inverse of `text`."""
    return value.encode("utf-8", "surrogateescape")


@dataclass(frozen=True, slots=True)
class Arrival:
    """How a request came in: what the listener knows, none of it the client's to choose but `sni`."""

    mode: Mode = "regular"
    listen_host: str = "127.0.0.1"
    tls: bool = False
    sni: str | None = None
    inside_connect: bool = False
    authenticated: bool = False
    replay: bool = False


@dataclass(frozen=True)
class RequestHead:
    """Method, where the request is really going, target and headers.

    `host` and `port` are those of the request line, the CONNECT or the reverse listener's target, never
    of the Host header, which is the client's word only. `host` is in normal form.
    """

    method: str
    scheme: str
    host: str
    port: int
    target: str
    fields: Fields
    authority: str = ""

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]

    @cached_property
    def matched_path(self) -> str:
        """The path in the form that rules are matched on."""
        return normal_path(self.path)

    @cached_property
    def has_odd_path(self) -> bool:
        """Whether the path has dot or empty segments, and so fits no rule that has a `path`."""
        return has_odd_segments(self.path)

    @cached_property
    def _values(self) -> dict[str, tuple[str, ...]]:
        values: dict[str, tuple[str, ...]] = {}
        for name, value in self.fields:
            key = lower_name(name)
            values[key] = (*values.get(key, ()), text(value))
        return values

    def all(self, name: str) -> tuple[str, ...]:
        """All values of a header; the name in lower case."""
        return self._values.get(name, ())

    def get(self, name: str) -> str | None:
        """The values of a header joined as RFC 9110 says, or None where it is absent."""
        values = self.all(name)
        return ", ".join(values) if values else None
