"""Proxies in front of upstreams: which one a connection uses, as curl reads the environment."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal
from urllib.parse import unquote

from ..text.redact import Secret
from .addresses import UrlScheme, is_loopback, parse_authority

ProxyScheme = Literal["http", "https", "socks5", "socks5h"]
ENVIRONMENT, NONE = "env", "none"
# The gateway's setting, for the helper programs that fetch tokens.
SETTING_VARIABLE = "MITM_GATEWAY_PROXY"
EXAMPLE = '"http://proxy.example.com:3128"'
# curl's defaults for a URL without a port.
_PORTS: Mapping[ProxyScheme, int] = {"http": 1080, "https": 443, "socks5": 1080, "socks5h": 1080}
# For http, curl ignores the name in upper case: web servers set it from a header of a request.
_VARIABLES: Mapping[UrlScheme, tuple[str, ...]] = {
    "https": ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"),
    "http": ("http_proxy", "all_proxy", "ALL_PROXY"),
}
_EXCEPTIONS = ("no_proxy", "NO_PROXY")
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]{0,15}")


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy, and the variable or option that names it."""

    scheme: ProxyScheme
    host: str
    port: int
    source: str
    user: str | None
    password: Secret

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def url(self) -> Secret:
        """The URL with user and password."""
        login = "" if self.user is None else f"{_quoted(self.user)}:{_quoted(self.password.reveal())}@"
        return Secret(f"{self.scheme}://{login}{self}")

    @classmethod
    def parse(cls, text: str, source: str) -> Proxy:
        """Parse `[scheme://][user:password@]host[:port]`. Raises ValueError that names the source alone."""
        fault = f"{source} is not the URL of a proxy; expected one such as {EXAMPLE}"
        if any(character <= " " or character == "\x7f" for character in text):
            raise ValueError(f"{fault}, without spaces")
        name, separator, rest = text.partition("://")
        if not separator:
            name, rest = "http", text
        scheme = next((known for known in _PORTS if known == name.lower()), None)
        if scheme is None:
            shown = f' "{name}"' if _SCHEME.fullmatch(name.lower()) else ""
            raise ValueError(
                f"{source} names a proxy of an unknown kind{shown}; expected {', '.join(_PORTS)}"
            )
        login, has_login, place = re.split(r"[/?#]", rest, maxsplit=1)[0].rpartition("@")
        try:
            authority = parse_authority(place)
        except ValueError:
            raise ValueError(fault) from None
        user, _, password = login.partition(":")
        return cls(
            scheme,
            authority.host,
            authority.port or _PORTS[scheme],
            source,
            _unquoted(user) if has_login else None,
            Secret(_unquoted(password)),
        )


def _unquoted(text: str) -> str:
    return unquote(text, errors="surrogateescape")


def _quoted(text: str) -> str:
    return "".join(f"%{byte:02X}" for byte in bytes_of(text))


def bytes_of(login: str) -> bytes:
    """Return the bytes of a user or password, which need not be UTF-8."""
    return login.encode(errors="surrogateescape")


@dataclass(frozen=True, slots=True)
class Proxies:
    """The proxies for both kinds of URL, and the hosts that are reached directly."""

    https: Proxy | None = None
    http: Proxy | None = None
    exceptions: str = ""

    @classmethod
    def of(cls, setting: str, environ: Mapping[str, str]) -> Proxies:
        """Return the proxies for a value of `gateway_proxy`. Raises ValueError with the expected form."""
        if setting == NONE:
            return cls()
        exceptions = _first(_EXCEPTIONS, environ)[1]
        if setting == ENVIRONMENT:
            return cls(_from_environment("https", environ), _from_environment("http", environ), exceptions)
        try:
            proxy = Proxy.parse(setting, "gateway_proxy")
        except ValueError as fault:
            raise ValueError(f'{fault}, "{ENVIRONMENT}" or "{NONE}"') from None
        return cls(proxy, proxy, exceptions)

    @property
    def is_empty(self) -> bool:
        """True if everything is reached directly."""
        return self.https is None and self.http is None

    def route(self, scheme: UrlScheme, host: str) -> Proxy | None:
        """Return the proxy for a host; None if it is reached directly, as this machine always is."""
        proxy = self.https if scheme == "https" else self.http
        name = host.lower().strip("[]").removesuffix(".")
        if proxy is None or _is_this_machine(name) or is_excepted(name, self.exceptions):
            return None
        return proxy

    def __iter__(self) -> Iterator[Proxy]:
        """Yield each proxy once."""
        yield from dict.fromkeys(proxy for proxy in (self.https, self.http) if proxy is not None)

    def describe(self) -> str:
        """Return a sentence for the log; empty without a proxy."""
        kinds = (("https", self.https), ("http", self.http))
        used = [f"{kind} through {proxy} ({proxy.source})" for kind, proxy in kinds if proxy is not None]
        if not used:
            return ""
        excepted = "; not to the hosts in NO_PROXY" if self.exceptions else ""
        return f"connections leave by proxy: {', '.join(used)}{excepted}"


def _from_environment(scheme: UrlScheme, environ: Mapping[str, str]) -> Proxy | None:
    name, text = _first(_VARIABLES[scheme], environ)
    return Proxy.parse(text, name) if text else None


def _first(names: tuple[str, ...], environ: Mapping[str, str]) -> tuple[str, str]:
    """Return the first variable that is set and not empty, with its value."""
    return next(((name, environ[name]) for name in names if environ.get(name)), ("", ""))


def _is_this_machine(name: str) -> bool:
    return (
        name == "localhost" or name.endswith(".localhost") or is_loopback(name) or name in ("0.0.0.0", "::")
    )


def is_excepted(host: str, exceptions: str) -> bool:
    """Return whether a `NO_PROXY` value covers a host in lower case, by curl's rules.

    Entries are separated by commas or blanks: a name, with or without a dot in front, covers itself and the names
    below it; an address or a network in CIDR form covers addresses; `*` covers everything.
    """
    entries = exceptions.lower().replace(",", " ").split()
    if "*" in entries:
        return True
    address = _address(host)
    if address is not None:
        return any(_contains(entry, address) for entry in entries)
    names = [entry.removesuffix(".").removeprefix(".") for entry in entries]
    return any(name and (host == name or host.endswith(f".{name}")) for name in names)


_IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


def _address(text: str) -> _IpAddress | None:
    try:
        return ipaddress.ip_address(text.strip("[]"))
    except ValueError:
        return None


def _contains(entry: str, address: _IpAddress) -> bool:
    network, _, bits = entry.partition("/")
    base = _address(network)
    if base is None or base.version != address.version:
        return False
    if not bits:
        return base == address
    try:
        return address in ipaddress.ip_network(f"{base}/{int(bits)}", strict=False)
    except ValueError:
        return False
