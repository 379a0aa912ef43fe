"""Hosts, authorities and upstream URLs in one normal form, so that two spellings of an address compare equal."""

from __future__ import annotations

import encodings.idna
import ipaddress
import re
import unicodedata
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Literal
from urllib.parse import unquote

from ..text.echoes import MAX_DECODINGS
from ..text.short_cache import remember_short

UrlScheme = Literal["http", "https"]
DEFAULT_PORTS: dict[str, int] = {"http": 80, "https": 443}

# RFC 1123: letters, digits and hyphens; container networks also use the underscore.
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_PORT = re.compile(r"[0-9]{1,5}")
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(?:\*|[^/\s*,]+)/?")
# Resolvers read a name that ends in a number as an address: 127.1, 2130706433, 0x7f000001.
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
# The characters that IDNA reads as "." (RFC 3490, 3.1).
_DOTS = re.compile("[\u3002\uff0e\uff61]")
# Far longer than any name whose ASCII form has at most 253 characters.
_MAX_HOST_TEXT = 1024
# A version segment such as /v1 that both a base path and a request path may have.
_VERSION = re.compile(r"/v[0-9]++[a-z0-9]*+")


class AmbiguousHost(ValueError):
    """A host name that IDNA 2003 and current clients (UTS 46) read as two different names.

    The text names the clients' reading, as far as it is known: that spelling is understood everywhere.
    """

    def __init__(self, ascii_form: str | None) -> None:
        spelling = f'"{ascii_form}"' if ascii_form else "its ASCII form (xn--…)"
        super().__init__(f"has a host that programs read in two ways; expected {spelling}")


@remember_short
def normal_host(text: str) -> str:
    """Return a host name as ASCII in lower case without a final dot, or an IP address in its shortest form.

    Raises ValueError, without quoting the text, if it is neither a name nor an address, and AmbiguousHost if
    it is two names.
    """
    try:
        return _normal_host(text)
    except AmbiguousHost:
        raise
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


# Sharp s and final sigma, which IDNA 2003 replaces and UTS 46 keeps.
_KEPT_BY_CLIENTS = "\xdf\u03c2"
# Invisible characters, which IDNA 2003 removes and UTS 46 treats one by one (RFC 3454, table B.1).
_INVISIBLE = re.compile(
    "[\xad\u034f\u1806\u180b-\u180d\u200b-\u200d\u2060\ufe00-\ufe0f\ufeff"
    "\u115f\u1160\u17b4\u17b5\u3164\uffa0]"
)


def _ascii_form(name: str) -> str:
    labels = with_plain_dots(name).split(".")
    if not all(label.isascii() or _has_one_reading(label) for label in labels):
        raise AmbiguousHost(_clients_reading(labels))
    # UnicodeError is a ValueError.
    return ".".join(labels).encode("idna").decode("ascii")


def _has_one_reading(label: str) -> bool:
    """Return whether IDNA 2003, which Python has, and UTS 46, which clients use, agree about a label."""
    if _INVISIBLE.search(label) or any(character in _KEPT_BY_CLIENTS for character in label):
        return False
    if any(unicodedata.ucd_3_2_0.category(character) == "Cn" for character in label):
        return False
    old = encodings.idna.nameprep(label)
    new = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", label).casefold())
    return old == new and "." not in new


def _clients_reading(labels: list[str]) -> str | None:
    """Return the ASCII form of a name with sharp s or final sigma; None for anything more unusual."""
    found = [_clients_label(label) for label in labels]
    return ".".join(found) if all(map(_LABEL.fullmatch, found)) else None


def _clients_label(label: str) -> str:
    if label.isascii():
        return label.lower()
    if _has_one_reading(label):
        return label.encode("idna").decode("ascii")
    others = label.translate(dict.fromkeys(map(ord, _KEPT_BY_CLIENTS), "a"))
    if not (others.isascii() or _has_one_reading(others)):
        return ""
    folded = "".join(each if each in _KEPT_BY_CLIENTS else each.casefold() for each in label)
    return "xn--" + unicodedata.normalize("NFKC", folded).encode("punycode").decode("ascii")


@remember_short
def is_loopback(host: str) -> bool:
    """Return whether a host in normal form is a literal loopback address; a name never is."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def is_address(host: str) -> bool:
    """Return whether a host in normal form is an IP address."""
    return ":" in host or host.rpartition(".")[2].isdigit()


# Clouds describe a machine, its credentials included, at these addresses and at link-local ones: AWS, Google,
# Scaleway, Alibaba, Azure, Oracle.
_METADATA = [
    ipaddress.ip_address(text)
    for text in [
        "fd00:ec2::254",
        "fd20:ce::254",
        "fd00:42::42",
        "100.100.100.200",
        "168.63.129.16",
        "192.0.0.192",
    ]
]


def is_metadata_address(text: str) -> bool:
    """Return whether a cloud may offer its metadata at an address; a zone in it is ignored."""
    address = ipaddress.ip_address(text.partition("%")[0])
    plain = getattr(address, "ipv4_mapped", None) or address
    return plain.is_link_local or plain in _METADATA


@dataclass(frozen=True, slots=True)
class Authority:
    """`host[:port]` with the host in normal form."""

    host: str
    port: int | None


@remember_short
def parse_authority(text: str) -> Authority:
    """Parse the authority of a Host header or request target. Raises ValueError for anything else."""
    host, port = text, None
    if not text.startswith("[") or not text.endswith("]"):
        head, colon, tail = text.rpartition(":")
        if colon:
            host, port = head, parse_port(tail)
    if ":" in host and not host.startswith("["):
        raise ValueError("an IPv6 address must be in brackets")
    return Authority(normal_host(host), port)


def parse_port(text: str) -> int:
    """Parse a port number from 1 to 65535. Raises ValueError."""
    if not _PORT.fullmatch(text) or not 0 < int(text) < 65536:
        raise ValueError("not a port number")
    return int(text)


def parse_origin(text: str) -> str:
    """Parse a web origin as browsers send it; `*` as a whole host stands for any. Raises ValueError."""
    if not _ORIGIN.fullmatch(text.lower()):
        raise ValueError('not an origin; expected one such as "https://app.example.com"')
    return text.lower().rstrip("/")


def hostport(host: str, port: int, scheme: str) -> str:
    """Return the value of a Host header, with the port only if it is not the default port of the URL scheme."""
    name = f"[{host}]" if ":" in host else host
    return name if port == DEFAULT_PORTS.get(scheme) else f"{name}:{port}"


@dataclass(frozen=True)
class Upstream:
    """The destination of a request: URL scheme, host, port and a base path without a final slash."""

    # Without slots: requests share the few destinations, so each property is computed once.

    scheme: UrlScheme
    host: str
    port: int
    base: str = ""

    def __str__(self) -> str:
        return self.url

    @cached_property
    def url(self) -> str:
        """The URL of the base path."""
        return f"{self.scheme}://{self.authority}{self.base}"

    @cached_property
    def authority(self) -> str:
        """The value of the Host header."""
        return hostport(self.host, self.port, self.scheme)

    @cached_property
    def version(self) -> str:
        """The version segment at the end of the base path, such as `/v1`; empty if there is none."""
        last = self.base[self.base.rfind("/") :] if self.base else ""
        return last if _VERSION.fullmatch(last) else ""

    @cached_property
    def is_private(self) -> bool:
        """True if the network cannot read the request: TLS, or a literal loopback address."""
        return self.scheme == "https" or is_loopback(self.host)

    @classmethod
    def parse(cls, text: str) -> Upstream:
        """Parse `https://host[:port][/base]`. Raises ValueError with the reason."""
        if any(character <= " " or character == "\x7f" for character in text):
            raise ValueError('contains a space or a control character; expected "https://host[:port][/base]"')
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
            authority = parse_authority(name)
        except AmbiguousHost:
            raise
        except ValueError:
            raise ValueError('has no valid host or port; expected "https://host[:port][/base]"') from None
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


@lru_cache(maxsize=512)
def place(scheme: str, host: str, port: int) -> Upstream:
    """Return the destination without a base path at a host."""
    return Upstream("https" if scheme == "https" else "http", host, port)


# Letters, digits, `-._~` (RFC 3986, 6.2.2.2), and `:@`, which mean the same in a segment either way.
_NEEDLESS = re.compile(r"%(2[dDeE]|3[0-9aA]|4[0-9a-fA-F]|5[0-9aAfF]|6[1-9a-fA-F]|7[0-9aAeE])")
_PARAMETERS = re.compile(r";[^/]*")
_PATH_END = re.compile(r"[?#\0]")
_SLASHES = re.compile(r"/+")
_BLANKS = "".join(map(chr, (*range(1, 0x21), 0x7F)))


def lenient_path(path: str) -> str:
    """Return a path as the most lenient servers read it: decoded again, without parameters, blanks and a tail."""
    for _ in range(MAX_DECODINGS):
        path = unquote(path, errors="surrogateescape")
    path = _PARAMETERS.sub("", _PATH_END.split(path.replace("\\", "/"), maxsplit=1)[0])
    return "/".join([segment.strip(_BLANKS) for segment in _SLASHES.split(path)])


def normal_path(path: str) -> str:
    """Return a path with needlessly percent-encoded letters, digits and `-._~:@` decoded."""
    return _NEEDLESS.sub(lambda found: chr(int(found[1], 16)), path) if "%" in path else path


def has_odd_segments(path: str) -> bool:
    """Return whether a path has dot segments or empty segments, also percent-encoded once or twice.

    A final slash is no empty segment. A backslash counts as a slash, as some servers read it.
    """
    if "/." not in path and "//" not in path and "%" not in path and "\\" not in path:
        return False
    for _ in range(MAX_DECODINGS):
        segments = path.replace("\\", "/").split("/")[1:]
        if segments and segments[-1] == "":
            segments.pop()
        # "..;x" is a dot segment for servers that read ";x" as a path parameter.
        if any(segment.partition(";")[0] in ("", ".", "..") and segment[:1] != ";" for segment in segments):
            return True
        if "%" not in path:
            return False
        path = unquote(path, errors="surrogateescape")
    return False
