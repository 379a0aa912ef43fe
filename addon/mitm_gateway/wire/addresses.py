"""Hosts, authorities and upstream URLs in one normal form, so that two spellings of an address compare equal."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

UrlScheme = Literal["http", "https"]
DEFAULT_PORTS: dict[str, int] = {"http": 80, "https": 443}

# RFC 1123: letters, digits and hyphens; container networks also use the underscore.
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_PORT = re.compile(r"[0-9]{1,5}")
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s*]+/?")
# Resolvers read a name that ends in a number as an address: 127.1, 2130706433, 0x7f000001.
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
# The characters that IDNA reads as "." (RFC 3490, 3.1).
_DOTS = re.compile("[\u3002\uff0e\uff61]")
# Far longer than any name whose ASCII form has at most 253 characters.
_MAX_HOST_TEXT = 1024
# A version segment such as /v1 that both a base path and a request path may have.
_VERSION = re.compile(r"/v[0-9]+[a-z0-9]*")


@lru_cache(maxsize=4096)
def normal_host(text: str) -> str:
    """Return a host name as ASCII in lower case without a final dot, or an IP address in its shortest form.

    Raises ValueError, without quoting the text, if it is neither a name nor an address.
    """
    try:
        return _normal_host(text)
    except ValueError:  # `ipaddress` quotes the text
        raise ValueError("not a host name or address") from None


def _normal_host(text: str) -> str:
    if len(text) > _MAX_HOST_TEXT:
        raise ValueError(text)
    if text.startswith("[") and text.endswith("]"):
        return _ipv6(text[1:-1])
    name = text if text.isascii() else _ascii_form(text)
    name = name.lower().removesuffix(".")
    if ":" in name:
        return _ipv6(name)
    if not name or len(name) > 253 or not all(map(_LABEL.fullmatch, name.split("."))):
        raise ValueError(text)
    if _NUMBER.fullmatch(name.rpartition(".")[2]):
        return str(ipaddress.IPv4Address(name))
    return name


def _ipv6(text: str) -> str:
    if "%" in text:  # a zone, which is valid on one machine only
        raise ValueError(text)
    return str(ipaddress.IPv6Address(text))


def with_plain_dots(text: str) -> str:
    """Return a text in which the full stops of other scripts are dots, as IDNA reads them."""
    return text if text.isascii() else _DOTS.sub(".", text)


def _ascii_form(name: str) -> str:
    # UnicodeError is a ValueError.
    return with_plain_dots(name).encode("idna").decode("ascii")


@lru_cache(maxsize=4096)
def is_loopback(host: str) -> bool:
    """Report whether a host in normal form is a literal loopback address; a name never is."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


@dataclass(frozen=True, slots=True)
class Authority:
    """`host[:port]` with the host in normal form."""

    host: str
    port: int | None

    @classmethod
    @lru_cache(maxsize=4096)
    def parse(cls, text: str) -> Authority:
        """Parse the authority of a Host header or request target. Raises ValueError for anything else."""
        host, port = text, None
        if not text.startswith("[") or not text.endswith("]"):
            head, colon, tail = text.rpartition(":")
            if colon:
                host, port = head, parse_port(tail)
        if ":" in host and not host.startswith("["):
            raise ValueError("an IPv6 address must be in brackets")
        return cls(normal_host(host), port)


def parse_port(text: str) -> int:
    """Parse a port number from 1 to 65535. Raises ValueError."""
    if not _PORT.fullmatch(text) or not 0 < int(text) < 65536:
        raise ValueError("not a port number")
    return int(text)


def parse_origin(text: str) -> str:
    """Parse a web origin as browsers send it. Raises ValueError."""
    if not _ORIGIN.fullmatch(text.lower()):
        raise ValueError('not an origin; expected one such as "https://app.example.com"')
    return text.lower().rstrip("/")


@lru_cache(maxsize=4096)
def hostport(host: str, port: int, scheme: str) -> str:
    """Return the value of a Host header, with the port only if it is not the default port of the URL scheme."""
    name = f"[{host}]" if ":" in host else host
    return name if port == DEFAULT_PORTS.get(scheme) else f"{name}:{port}"


@dataclass(frozen=True, slots=True)
class Upstream:
    """The destination of a request: URL scheme, host, port and a base path without a final slash."""

    scheme: UrlScheme
    host: str
    port: int
    base: str = ""

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.base}"

    @property
    def authority(self) -> str:
        """The value of the Host header."""
        return hostport(self.host, self.port, self.scheme)

    @property
    def version(self) -> str:
        """The version segment at the end of the base path, such as `/v1`; empty if there is none."""
        last = self.base[self.base.rfind("/") :] if self.base else ""
        return last if _VERSION.fullmatch(last) else ""

    @property
    def is_private(self) -> bool:
        """Whether the network cannot read the request: TLS, or a literal loopback address."""
        return self.scheme == "https" or is_loopback(self.host)

    @classmethod
    def parse(cls, text: str) -> Upstream:
        """Parse `https://host[:port][/base]`. Raises ValueError with the reason."""
        if any(character <= " " or character == "\x7f" for character in text):
            raise ValueError("contains a space or a control character")
        url_scheme, separator, rest = text.partition("://")
        scheme: UrlScheme = "http" if url_scheme.lower() == "http" else "https"
        if not separator or url_scheme.lower() != scheme:
            raise ValueError('is not a URL; expected "https://host[:port][/base]"')
        name, slash, path = rest.partition("/")
        if "@" in name:
            raise ValueError('contains a user name or password; put the secret under "credentials"')
        if "?" in rest or "#" in rest:
            raise ValueError('has a query or fragment; expected "https://host[:port][/base]"')
        try:
            authority = Authority.parse(name)
        except ValueError:
            raise ValueError('has no valid host; expected "https://host[:port][/base]"') from None
        base = (slash + path).rstrip("/")
        if not base.isascii():
            raise ValueError("has a base path that is not ASCII; expected it percent-encoded")
        if base and has_odd_segments(base):
            raise ValueError("has dot or empty segments in its base path")
        return cls(scheme, authority.host, authority.port or DEFAULT_PORTS[scheme], base)

    def join(self, path: str) -> str:
        """Return a request path, with or without a query, behind this base path: no `//`, no version segment twice."""
        if path and not path.startswith("/"):
            return path  # the "*" of OPTIONS
        rest = path.removeprefix(self.version)
        if rest[:1] in ("", "/", "?"):
            path = rest
        joined = self.base + path
        return joined if joined.startswith("/") else "/" + joined


_UNRESERVED = re.compile(r"%(2[dDeE]|3[0-9]|4[1-9a-fA-F]|5[0-9aAfF]|6[1-9a-fA-F]|7[0-9aAeE])")
_ESCAPE = re.compile(r"%[0-9a-fA-F]{2}")


def _decoded(path: str) -> str:
    return _ESCAPE.sub(lambda found: chr(int(found[0][1:], 16)), path)


def normal_path(path: str) -> str:
    """Return a path with needlessly percent-encoded letters, digits and `-._~` decoded (RFC 3986, 6.2.2.2)."""
    return _UNRESERVED.sub(lambda found: chr(int(found[1], 16)), path) if "%" in path else path


def has_odd_segments(path: str) -> bool:
    """Report whether a path has dot segments or empty segments, also percent-encoded once or twice.

    A final slash is no empty segment. A backslash counts as a slash, as some servers read it.
    """
    if "/." not in path and "//" not in path and "%" not in path and "\\" not in path:
        return False
    for _ in range(3):
        segments = path.replace("\\", "/").split("/")[1:]
        if segments and segments[-1] == "":
            segments.pop()
        # "..;x" is a dot segment for servers that read ";x" as a path parameter.
        if any(segment.partition(";")[0] in ("", ".", "..") and segment[:1] != ";" for segment in segments):
            return True
        if "%" not in path:
            return False
        path = _decoded(path)
    return False
