"""The listeners: on this machine only, unless the user says otherwise."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import socket
from collections.abc import Callable

from mitmproxy import ctx
from mitmproxy.addons.proxyserver import Proxyserver

from ..wire.addresses import is_metadata_address

logger = logging.getLogger(__name__)

_EVERYWHERE = frozenset({"0.0.0.0", "::", ""})

_ATTEMPTS, _RELEASE_S = 5, 0.1


def listen_ports() -> frozenset[int]:
    """The ports that this proxy listens on."""
    server = ctx.master.addons.get("proxyserver")
    return frozenset(address[1] for address in server.listen_addrs()) if server else frozenset()


async def leads_here(host: str, *, nearby: bool = False) -> bool:
    """Whether a name or address leads to this machine; `nearby` also counts link-local
    addresses and those at which clouds describe a machine, its credentials included.
    """
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return False  # the connection will fail for the same reason
    addresses = {str(place[0]).partition("%")[0] for *_, place in found}
    return any(_is_here(address) or (nearby and is_metadata_address(address)) for address in addresses)


def _is_here(text: str) -> bool:
    """Whether an address is one of this machine's: only those can be bound."""
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


def bind_to_loopback() -> None:
    """Binds again where the listener was opened before `listen_host` could be set.

    From Python 3.12 on mitmproxy binds before it loads scripts; until the new binding stands, peers from
    elsewhere are dropped as they connect.
    """
    host = ctx.options.listen_host
    server = ctx.master.addons.get("proxyserver")
    if host in _EVERYWHERE or server is None:
        return
    exposed = [address for address in server.listen_addrs() if address[0] in _EVERYWHERE]
    if exposed:
        logger.info("binding again, to %s only", host)
        global _rebinding  # kept, or the loop would forget the task
        _rebinding = asyncio.get_running_loop().create_task(_bind_again(server, exposed[0][1]))


_rebinding: asyncio.Task[None] | None = None


async def _bind_again(server: Proxyserver, port: int) -> None:
    if ctx.options.listen_port == 0:
        ctx.options.update(listen_port=port)  # what was said to the user still holds
    for _ in range(_ATTEMPTS):
        ctx.options.update(server=False)
        await _until(lambda: not server.listen_addrs())
        # The native UDP socket of an https listener is free only a moment after it is said to be stopped.
        await asyncio.sleep(_RELEASE_S)
        ctx.options.update(server=True)
        if await _until(lambda: bool(server.listen_addrs())):
            return
    logger.error(
        "the port %d could not be bound again; start with --listen-host %s", port, ctx.options.listen_host
    )


async def _until(holds: Callable[[], bool]) -> bool:
    """Waits until something holds, at most two seconds; whether it does."""
    for _ in range(100):
        if holds():
            return True
        await asyncio.sleep(0.02)
    return holds()
