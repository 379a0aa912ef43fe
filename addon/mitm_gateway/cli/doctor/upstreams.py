"""Checks of each upstream: TCP, TLS and HTTP, through the proxy if one is set."""

import asyncio
import contextlib
import re
import socket
import ssl
import threading
from collections.abc import Mapping
from concurrent.futures import Future

import certifi

from ...clients.network import upstream_authorities
from ...mitm.proxy_tunnel import ProxyError, asks_for_login, authorization, dial, reach
from ...patches.patch import Streams
from ...patches.safety.error_pages import cause_of
from ...rules.ruleset import RuleSet
from ...rules.schema import Rule
from ...wire.addresses import Upstream
from ...wire.proxies import Proxies, Proxy
from . import options
from .finding import Fault, Finding, Findings, Good, Subject
from .network import is_gateway

# All are tried at once.
_PATIENCE_S = 10.0
_STATUS = re.compile(rb"HTTP/1\.[01] ([0-9]{3})")
_NOT_HTTP = "the upstream does not answer as HTTP"
_LATE = "the connection to the upstream timed out"
# The fix for each cause; the first one that occurs in it.
_FIXES = {
    "name was not found": "correct {}; if only a proxy can find the name, set HTTPS_PROXY or gateway_proxy",
    "timed out": "correct {}, or set HTTPS_PROXY or gateway_proxy to the proxy of your network",
    "cannot be reached": "correct {}, or set HTTPS_PROXY or gateway_proxy to the proxy of your network",
    "not trusted": "name the file of its authority in SSL_CERT_FILE or ssl_verify_upstream_trusted_ca",
    "not answer as HTTP": "correct the scheme or the port of {}",
    "the proxy": "correct the proxy's URL, or ask the administrator of the proxy to allow this host",
    "": "start it, or correct {}",
}


def check(ruleset: RuleSet, subject: Subject) -> Findings:
    """Connect to every upstream once."""
    yield from asyncio.run(_check(ruleset, subject))


async def _check(ruleset: RuleSet, subject: Subject) -> list[Finding]:
    given = options.configured(subject)
    try:
        proxies = Proxies.of(given.gateway_proxy if given else "env", subject.environ)
    except ValueError as fault:
        return [Fault(str(fault), "correct it; the gateway does not start")]
    file = given.ssl_verify_upstream_trusted_ca if given else None
    trust = _trust(file, subject.environ)
    places = _places(ruleset)
    own = [proxy for proxy in proxies if is_gateway(proxy, subject)]
    tries = [_try(place, name, _route(proxies, place, own), trust) for place, name in places.items()]
    return list(await asyncio.gather(*tries))


def _places(ruleset: RuleSet) -> Mapping[Upstream, str]:
    """Return each destination of the rules without its path, and the first rule that names it."""
    found: dict[Upstream, str] = {}
    for rule in ruleset.rules:
        for place in _destinations(rule):
            found.setdefault(place, rule.name)
    return found


def _destinations(rule: Rule) -> list[Upstream]:
    if isinstance(rule.upstream, Upstream):
        return [Upstream(rule.upstream.scheme, rule.upstream.host, rule.upstream.port)]
    if rule.upstream is not None:  # the demo, which the gateway starts
        return []
    return [
        Upstream("https", pattern.text.partition(":")[0], pattern.port or 443)
        for pattern in rule.match.host
        if "*" not in pattern.text
    ]


def _route(proxies: Proxies, place: Upstream, own: list[Proxy]) -> Proxy | None:
    proxy = proxies.route(place.scheme, place.host)
    return None if proxy in own else proxy


def _trust(file: str | None, environ: Mapping[str, str]) -> ssl.SSLContext:
    """Return the TLS settings with the authorities that `run` and `serve` trust upstream."""
    more = upstream_authorities(environ)
    if file or more is None:
        return ssl.create_default_context(cafile=file or certifi.where())
    return ssl.create_default_context(cadata=more.decode())


async def _try(place: Upstream, rule: str, proxy: Proxy | None, trust: ssl.SSLContext) -> Finding:
    way = f" through the proxy {proxy}" if proxy else ""
    try:
        async with asyncio.timeout(_PATIENCE_S):
            status = await _ask(place, proxy, trust)
    except ProxyError as fault:
        cause = fault.sentence
    except TimeoutError:
        cause = _LATE
    except asyncio.IncompleteReadError as fault:
        cause = _NOT_HTTP if fault.partial else "the upstream closed the connection without an answer"
    except (OSError, ValueError, asyncio.LimitOverrunError) as fault:
        cause = cause_of(str(fault)) or f"the upstream cannot be reached ({type(fault).__name__})"
    else:
        return Good(f"upstream {place} is reachable{way} ({status} for /)")
    fix = next(text for words, text in _FIXES.items() if words in cause)
    return Fault(f"upstream {place}: {cause}", fix.format(f'the upstream of rule "{rule}"'))


async def _ask(place: Upstream, proxy: Proxy | None, trust: ssl.SSLContext) -> int:
    """Return the status of the response to a request without a key."""
    is_plain = proxy is not None and place.scheme == "http" and proxy.scheme in ("http", "https")
    if proxy is None:
        reader, writer = await _direct(place.host, place.port)
    elif is_plain:
        reader, writer = await reach(proxy, trust=trust)
    else:
        reader, writer = await dial(proxy, place.host, place.port, trust=trust)
    try:
        if place.scheme == "https":
            await writer.start_tls(trust, server_hostname=place.host)
        writer.write(_request(place, proxy if is_plain else None))
        head = await reader.readuntil(b"\r\n\r\n")
    finally:
        writer.transport.abort()
    if not (found := _STATUS.match(head)):
        raise ValueError("cannot parse")
    if proxy is not None and is_plain and found[1] == b"407":
        raise ProxyError(proxy, asks_for_login(proxy, head))
    return int(found[1])


def _request(place: Upstream, proxy: Proxy | None) -> bytes:
    target = f"{place}/" if proxy else "/"
    login = authorization(proxy) if proxy else None
    lines = [f"HEAD {target} HTTP/1.1".encode(), f"Host: {place.authority}".encode(), b"Connection: close"]
    lines += [b"Proxy-Authorization: " + login] if login else []
    return b"\r\n".join([*lines, b"", b""])


async def _direct(host: str, port: int) -> Streams:
    *others, last = await _addresses(host)
    for address in others:
        with contextlib.suppress(OSError):
            return await asyncio.open_connection(address, port)
    return await asyncio.open_connection(last, port)


async def _addresses(host: str) -> list[str]:
    """Look a name up in a thread that does not keep the program alive: a resolver may take half a minute."""
    found: Future[list[str]] = Future()
    found.set_running_or_notify_cancel()  # from here on, nobody can cancel it

    def look_up() -> None:
        try:
            entries = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
            found.set_result([str(entry[4][0]) for entry in entries])
        except OSError as fault:
            found.set_exception(fault)
        except UnicodeError:
            found.set_exception(OSError("name not known"))

    threading.Thread(target=look_up, daemon=True).start()
    return await asyncio.wrap_future(found)
