"""The listeners: bound to this machine only, unless the user chose another address."""

import asyncio
import contextlib
import ipaddress
import logging
import socket
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import mitmproxy_rs
from mitmproxy import ctx

from ..wire.addresses import is_metadata_address

logger = logging.getLogger(__name__)

_EVERYWHERE = frozenset({"0.0.0.0", "::", ""})

_ATTEMPTS, _RELEASE_S = 20, 0.1
# How long connections that the wide listener has accepted may wait in its queue.
_DRAIN_S = 0.5

# Clients that may wait to be accepted. Of more, Linux drops the connection, and the client tries again a second later;
# asyncio's own bound is 100.
_BACKLOG = 4096

T = TypeVar("T")


def listen_ports() -> frozenset[int]:
    """Return the ports that this proxy listens on."""
    server = ctx.master.addons.get("proxyserver")
    return frozenset(address[1] for address in server.listen_addrs()) if server else frozenset()


async def leads_here(host: str, *, nearby: bool = False) -> bool:
    """Return whether a name or address leads to this machine.

    With `nearby`, link-local addresses count too, and those where clouds describe a machine, credentials included.
    """
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return False  # the connection will fail for the same reason
    addresses = {str(place[0]).partition("%")[0] for *_, place in found}
    return any(_is_here(address) or (nearby and is_metadata_address(address)) for address in addresses)


def _is_here(text: str) -> bool:
    """Return whether an address belongs to this machine: only those can be bound."""
    address = _plain(text)
    if address.is_loopback or address.is_unspecified:
        return True
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((str(address), 0))
        except OSError:
            return False
    return not address.is_multicast


def _plain(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    address = ipaddress.ip_address(text)
    return getattr(address, "ipv4_mapped", None) or address


def deepen_backlogs() -> None:
    """Let more clients wait to be accepted, at the listeners that are open and at those opened later."""
    if server := ctx.master.addons.get("proxyserver"):
        server.servers.changed.connect(_deepen_open_backlogs)
        _deepen_open_backlogs()


def _deepen_open_backlogs() -> None:
    for instance in ctx.master.addons.get("proxyserver").servers:
        for server in getattr(instance, "_servers", ()):
            for listening in server.sockets if isinstance(server, asyncio.Server) else ():
                with socket.fromfd(listening.fileno(), listening.family, listening.type) as copy:
                    copy.listen(_BACKLOG)


def bind_to_loopback() -> None:
    """Narrow a listener that was opened for all addresses before `listen_host` could be set.

    From Python 3.12 on mitmproxy binds before it loads scripts. Until the listener is narrowed, peers from other
    machines are dropped as they connect.
    """
    host = ctx.options.listen_host
    server = ctx.master.addons.get("proxyserver")
    if host in _EVERYWHERE or server is None:
        return
    exposed = [each for each in server.servers if any(place[0] in _EVERYWHERE for place in each.listen_addrs)]
    if exposed:
        global _narrowing  # kept, or the loop would forget the task
        _narrowing = asyncio.get_running_loop().create_task(_narrow_all(exposed, host))


_narrowing: asyncio.Task[None] | None = None


async def _narrow_all(instances: Sequence[Any], host: str) -> None:
    for instance in instances:
        port = instance.listen_addrs[0][1]
        try:
            await _narrow(instance, host, port)
        except (OSError, AttributeError) as fault:
            logger.error(  # noqa: TRY400 - the reason says it all
                "port %d could not be bound to %s (%s); start with --listen-host %s", port, host, fault, host
            )
        else:
            logger.info("port %d is reachable at %s only", port, host)
    _deepen_open_backlogs()


async def _narrow(instance: Any, host: str, port: int) -> None:
    """Replace the servers of a mode, which are at all addresses, by servers at one."""
    streams = [each for each in instance._servers if isinstance(each, asyncio.Server)]
    datagrams = [each for each in instance._servers if each not in streams]
    instance._servers = [await _narrowed(instance, each, host, port) for each in streams]
    for each in datagrams:  # one for each IP version
        each.close()
        await each.wait_closed()
    if datagrams:
        start = mitmproxy_rs.udp.start_udp_server
        instance._servers.append(await _retried(lambda: start(host, port, instance.handle_stream)))


async def _narrowed(instance: Any, server: asyncio.Server, host: str, port: int) -> asyncio.Server:
    """Open the narrow listener beside the wide one, and close that when its queue is empty.

    Linux prefers the more specific address, so that no connection is refused or lost. Elsewhere the port is closed
    for a moment.
    """
    if not sys.platform.startswith("linux"):
        server.close()
        return await _retried(lambda: asyncio.start_server(instance.handle_stream, host, port))
    for wide in server.sockets:
        wide.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    narrow = await asyncio.start_server(
        instance.handle_stream, host, port, reuse_address=True, reuse_port=True
    )
    asyncio.get_running_loop().call_later(_DRAIN_S, server.close)
    return narrow


async def _retried(start: Callable[[], Awaitable[T]]) -> T:
    """Start a server on a port that is free only a moment after its last user has closed it."""
    for _ in range(_ATTEMPTS - 1):
        with contextlib.suppress(OSError):
            return await start()
        await asyncio.sleep(_RELEASE_S)
    return await start()
