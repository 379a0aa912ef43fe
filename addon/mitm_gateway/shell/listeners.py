"""The listeners: on this machine only, unless the user says otherwise."""

from __future__ import annotations

import asyncio
import logging

from mitmproxy import ctx

logger = logging.getLogger(__name__)

_EVERYWHERE = frozenset({"0.0.0.0", "::", ""})


def listen_ports() -> frozenset[int]:
    """The ports that this proxy listens on."""
    server = ctx.master.addons.get("proxyserver")
    return frozenset(address[1] for address in server.listen_addrs()) if server else frozenset()


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
        asyncio.get_running_loop().call_soon(_bind_again, exposed[0][1])


def _bind_again(port: int) -> None:
    ctx.options.update(server=False)
    if ctx.options.listen_port == 0:
        ctx.options.update(listen_port=port)  # what was said to the user still holds
    ctx.options.update(server=True)
