"""Connections to upstreams, as the operating system keeps them."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import pytest
from mitmproxy.test import taddons, tflow

from mitm_gateway.mitm.requests import Requests
from mitm_gateway.mitm.upstream_proxy import UpstreamProxy
from mitm_gateway.wire.proxies import Proxies


@contextlib.asynccontextmanager
async def listening() -> AsyncIterator[int]:
    """Yield the port of a server that answers every CONNECT."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await reader.readline():
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


@pytest.mark.parametrize("proxied", [False, True])
async def test_a_silent_connection_is_kept_alive_as_the_sdks_do(proxied: bool) -> None:
    with taddons.context():
        async with listening() as port:
            setting = f"http://127.0.0.1:{port}" if proxied else "none"
            proxy = UpstreamProxy(lambda: Proxies.of(setting, {}), Requests())
            server = tflow.tserver_conn()
            server.address = ("upstream.test", 443) if proxied else ("127.0.0.1", port)
            _, writer = await proxy.dial(tflow.tclient_conn(), server)
            opened = writer.get_extra_info("socket")
            names = (socket.SO_KEEPALIVE, socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
            levels = (socket.SOL_SOCKET, *[socket.IPPROTO_TCP] * 3)
            found = [opened.getsockopt(level, name) for level, name in zip(levels, names, strict=True)]
            writer.transport.abort()
    assert found == [1, 60, 60, 5]
