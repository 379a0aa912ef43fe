"""A tunnel through a proxy, HTTP or SOCKS 5. Each kind of failure of a proxy has its own sentence."""

import asyncio
import base64
import contextlib
import ipaddress
import re
import socket
import ssl
from typing import Any

from ..patches.patch import Streams
from ..patches.safety.error_pages import OWN_FAULT
from ..wire.proxies import Proxy, bytes_of

# Squid gives up on a host after a minute.
_PATIENCE_S, _HANDSHAKE_S = 90.0, 20.0
_STATUS = re.compile(rb"HTTP/1\.[01] ([0-9]{3})(?: |\r\n)")
_BASIC = re.compile(rb"^proxy-authenticate:[ \t]*basic\b", re.IGNORECASE | re.MULTILINE)
_HAS_CHALLENGE = re.compile(rb"^proxy-authenticate:", re.IGNORECASE | re.MULTILINE)
_REFUSALS = {
    403: "does not allow connections to {}",
    404: "cannot reach {}, or does not find its name",
    502: "cannot reach {}, or does not find its name",
    503: "cannot reach {}, or does not find its name",
    504: "got no answer from {} in time",
}
# RFC 1928, 6.
_SOCKS_FAULTS = {
    1: "reports a failure",
    2: "does not allow connections to {}",
    3: "cannot reach the network of {}",
    4: "cannot reach {}, or does not find its name",
    5: "was refused the connection by {}",
    6: "got no answer from {} in time",
}


class ProxyError(OSError):
    """A proxy did not open the connection; the text contains neither user nor password, and nothing that it sent."""

    def __init__(self, proxy: Proxy, text: str) -> None:
        self.sentence = f"the proxy {proxy} {text}"
        super().__init__(OWN_FAULT + self.sentence)


async def dial(
    proxy: Proxy, host: str, port: int, *, trust: ssl.SSLContext | None = None, **options: Any
) -> Streams:
    """Open a tunnel to a host. `trust` verifies a proxy with `https://`; `options` are those of `open_connection`."""
    reader, writer = await reach(proxy, trust=trust, **options)
    try:
        async with asyncio.timeout(_PATIENCE_S):
            open_tunnel = _connect if proxy.scheme in ("http", "https") else _socks
            await open_tunnel(proxy, reader, writer, host, port)
    except BaseException as fault:
        writer.transport.abort()
        # A timeout is an OSError, too.
        if isinstance(fault, OSError | asyncio.IncompleteReadError) and not isinstance(fault, ProxyError):
            late = isinstance(fault, TimeoutError)
            raise ProxyError(proxy, "did not answer in time" if late else "closed the connection") from None
        raise
    return reader, writer


async def reach(proxy: Proxy, *, trust: ssl.SSLContext | None = None, **options: Any) -> Streams:
    """Open a connection to the proxy itself."""
    if proxy.scheme == "https":
        options |= {"ssl": trust or ssl.create_default_context(), "server_hostname": proxy.host}
        options["ssl_handshake_timeout"] = _HANDSHAKE_S
    try:
        async with asyncio.timeout(_PATIENCE_S):
            reader, writer = await asyncio.open_connection(proxy.host, proxy.port, **options)
    except OSError as fault:
        raise ProxyError(proxy, _unreachable(proxy, fault)) from None
    if proxy.scheme == "https":
        # asyncio cannot close one direction of TLS, and mitmproxy crashes where it tries.
        writer.transport.write_eof = writer.transport.close  # type: ignore[method-assign]
    return reader, writer


def _unreachable(proxy: Proxy, fault: OSError) -> str:
    match fault:
        case ssl.SSLCertVerificationError():
            return "has a certificate that is not trusted; for a private CA set ssl_verify_upstream_trusted_ca=FILE"
        case ssl.SSLError() | ConnectionAbortedError():  # the latter after a silent handshake
            return f'does not speak TLS; expected "http://" instead of "https://" in {proxy.source}'
        case socket.gaierror():
            return f"was not found by name; correct {proxy.source}"
        case ConnectionRefusedError():
            return f"refused the connection; correct {proxy.source}, or start it"
        case TimeoutError():
            return "did not answer in time"
    if "Connect call failed" in str(fault) or "refused" in str(fault):  # several addresses
        return f"refused the connection; correct {proxy.source}, or start it"
    return f"cannot be reached; correct {proxy.source}"


# ---- HTTP ----


def authorization(proxy: Proxy) -> bytes | None:
    """Return the value of Proxy-Authorization."""
    if proxy.user is None:
        return None
    return b"Basic " + base64.b64encode(bytes_of(f"{proxy.user}:{proxy.password.reveal()}"))


def asks_for_login(proxy: Proxy, head: bytes = b"") -> str:
    """Return the sentence for status 407. `head` is that of the response."""
    if _HAS_CHALLENGE.search(head) and not _BASIC.search(head):
        return "asks for a login other than Basic (407); put a local proxy that knows it, such as px or cntlm, in front"
    if proxy.user is None:
        return (
            f"asks for a user and a password (407); expected http://USER:PASSWORD@{proxy} in {proxy.source}"
        )
    return f"does not accept the user and the password in {proxy.source} (407)"


async def _connect(
    proxy: Proxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, port: int
) -> None:
    place = (f"[{host}]:{port}" if ":" in host else f"{_ascii(host)}:{port}").encode()
    login = authorization(proxy)
    writer.write(b"CONNECT %s HTTP/1.1\r\nHost: %s\r\n" % (place, place))
    writer.write(b"Proxy-Authorization: %s\r\n\r\n" % login if login else b"\r\n")
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError) as fault:
        if isinstance(fault, asyncio.IncompleteReadError) and not fault.partial:
            raise
        head = b""
    if not (found := _STATUS.match(head)):
        raise ProxyError(proxy, f"does not answer as an HTTP proxy; correct {proxy.source}")
    if not 200 <= (status := int(found[1])) < 300:
        raise ProxyError(proxy, _refusal(proxy, status, head, place.decode()))


def _refusal(proxy: Proxy, status: int, head: bytes, place: str) -> str:
    if status == 407:
        return asks_for_login(proxy, head)
    return f"{_REFUSALS.get(status, 'refused the connection to {}').format(place)} ({status})"


def _ascii(host: str) -> str:
    with contextlib.suppress(UnicodeError):
        return host.encode("idna").decode()
    raise OSError("not a host name")


# ---- SOCKS 5 (RFC 1928, RFC 1929) ----


async def _socks(
    proxy: Proxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, port: int
) -> None:
    await _socks_login(proxy, reader, writer)
    writer.write(b"\x05\x01\x00" + await _socks_address(proxy, host) + port.to_bytes(2, "big"))
    version, fault, _, kind = await reader.readexactly(4)
    rest = {1: 4, 4: 16}.get(kind) or (await reader.readexactly(1))[0]
    await reader.readexactly(rest + 2)
    if version != 5:
        raise ProxyError(proxy, f"does not answer as a SOCKS 5 proxy; correct {proxy.source}")
    if fault:
        place = f"{host}:{port}"
        raise ProxyError(proxy, _SOCKS_FAULTS.get(fault, "refused the connection to {}").format(place))


async def _socks_login(proxy: Proxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    user, password = bytes_of(proxy.user or ""), bytes_of(proxy.password.reveal())
    if max(len(user), len(password)) > 255:
        raise ProxyError(proxy, f"accepts at most 255 bytes of user name or password; correct {proxy.source}")
    writer.write(b"\x05\x01\x00" if proxy.user is None else b"\x05\x02\x00\x02")
    version, method = await reader.readexactly(2)
    if version != 5:
        raise ProxyError(proxy, f"does not answer as a SOCKS 5 proxy; correct {proxy.source}")
    if method == 2:
        writer.write(bytes([1, len(user)]) + user + bytes([len(password)]) + password)
        _, refused = await reader.readexactly(2)
        if refused:
            raise ProxyError(proxy, f"does not accept the user and the password in {proxy.source}")
    elif method:
        raise ProxyError(proxy, f"asks for a login; expected USER:PASSWORD@ in {proxy.source}")


async def _socks_address(proxy: Proxy, host: str) -> bytes:
    """Return an address in the form of SOCKS; with `socks5`, names are looked up here."""
    with contextlib.suppress(ValueError):
        return _packed(host)
    if proxy.scheme == "socks5":
        found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
        return _packed(str(found[0][4][0]))
    name = _ascii(host).encode()
    return bytes([3, len(name)]) + name


def _packed(text: str) -> bytes:
    address = ipaddress.ip_address(text)
    return bytes([1 if address.version == 4 else 4]) + address.packed
