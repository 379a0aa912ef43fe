"""The head of a request: read once from mitmproxy, never changed."""

from dataclasses import dataclass, field
from typing import Literal

from ..text.redact import Fields as Fields
from ..text.short_cache import remember_short
from .addresses import has_odd_segments, normal_path

Mode = Literal["regular", "reverse", "transparent"]
# Google's SDKs join "/ws/…" to a base URL that ends in a slash.
DOUBLED_PATH = "//ws/google."


def as_text(value: bytes) -> str:
    """Return header bytes as text; bytes that are not UTF-8 survive the way back through `as_bytes`."""
    return value.decode("utf-8", "surrogateescape")


@remember_short
def lower_name(name: bytes) -> str:
    """Return a header's name in the form in which names are compared."""
    return as_text(name).lower()


def as_bytes(value: str) -> bytes:
    """Return text as header bytes, the inverse of `as_text`."""
    return value.encode("utf-8", "surrogateescape")


@dataclass(frozen=True, slots=True)
class Arrival:
    """Properties of the listener and connection that received a request; the client chooses only `sni`."""

    mode: Mode = "regular"
    listen_host: str = "127.0.0.1"
    tls: bool = False
    sni: str | None = None
    inside_connect: bool = False
    authenticated: bool = False
    replay: bool = False
    goes_to_proxy: bool = False
    """The listener has its own proxy, which receives plain http as it is: mode `upstream`."""


@dataclass(slots=True)
class RequestHead:
    """Method, actual destination, target and headers, and the forms of them that decisions need, computed once.

    `host` and `port` are those of the request line, the CONNECT or the reverse listener's target, never those of the
    Host header, which is only a claim of the client. `host` is in normal form.
    """

    method: str
    scheme: str
    host: str
    port: int
    target: str
    fields: Fields
    authority: str = ""
    verb: str = field(init=False, repr=False, compare=False)
    """The method in upper case."""
    path: str = field(init=False, repr=False, compare=False)
    """The target without its query, and without the slash that Google's SDKs double."""
    query: str = field(init=False, repr=False, compare=False)
    """The query with its question mark, if the target has one."""
    matched_path: str = field(init=False, repr=False, compare=False)
    """The path in the form in which rules match it."""
    has_odd_path: bool = field(init=False, repr=False, compare=False)
    """True if the path has dot or empty segments and therefore matches no rule that has a `path`."""
    values: dict[str, tuple[str, ...]] = field(init=False, repr=False, compare=False)
    """The values of the headers, by name in lower case."""

    def __post_init__(self) -> None:
        self.verb = self.method.upper()
        path, mark, query = self.target.partition("?")
        self.path = path = path[1:] if path.startswith(DOUBLED_PATH) else path
        self.query = mark + query
        self.matched_path = normal_path(path)
        self.has_odd_path = has_odd_segments(path)
        values: dict[str, tuple[str, ...]] = {}
        for name, value in self.fields:
            lowered = lower_name(name)
            values[lowered] = (*values.get(lowered, ()), as_text(value))
        self.values = values

    def all(self, name: str) -> tuple[str, ...]:
        """Return all values of a header, given its name in lower case."""
        return self.values.get(name, ())

    def get(self, name: str) -> str | None:
        """Return the values of a header joined as in RFC 9110, 5.3, or None if it is absent."""
        values = self.values.get(name)
        return ", ".join(values) if values else None
