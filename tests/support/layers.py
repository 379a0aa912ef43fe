"""mitmproxy's own HTTP layers with the gateway in them, in this process: bytes in, bytes out, no socket, no clock."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from typing import Any

from mitmproxy.connection import Client, ConnectionState, Server
from mitmproxy.hooks import Hook
from mitmproxy.proxy import commands, events
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers import HttpLayer
from mitmproxy.proxy.layers.http import HTTPMode
from mitmproxy.proxy.mode_specs import ProxyMode
from mitmproxy.proxy.server_hooks import ServerConnectHook, ServerConnectionHookData
from mitmproxy.test import taddons


class Connection:
    """One client's connection. `target` is where a tunnel or a reverse listener leads, None for a plain proxy.

    Upstreams answer with `answer`, in pieces of `cut` bytes.
    """

    def __init__(
        self,
        gateway: taddons.context,
        *,
        mode: str = "regular",
        target: tuple[str, int] | None = None,
        sni: str | None = None,
        alpn: bytes | None = None,
        answer: bytes = b"",
        cut: int = 65536,
    ) -> None:
        self._addons = gateway.master.addons
        self._answer = [answer[place : place + cut] for place in range(0, len(answer), cut)]
        self.client = Client(
            peername=("127.0.0.1", 50000),
            sockname=("127.0.0.1", 8080),
            timestamp_start=time.time(),
            state=ConnectionState.OPEN,
            proxy_mode=ProxyMode.parse(mode),
        )
        self.client.tls, self.client.sni, self.client.alpn = sni is not None, sni, alpn
        context = Context(self.client, gateway.options)
        if target is not None:
            context.server = Server(address=target)
            context.server.tls = True
        self._layer = HttpLayer(context, HTTPMode.regular if target is None else HTTPMode.transparent)
        self.got = b""  # by the client
        self.sent: dict[tuple[str, int], bytes] = {}  # to each address that was connected to
        self.logged: list[str] = []

    async def start(self) -> None:
        """The client is connected."""
        await self._feed(events.Start())

    async def receive(self, data: bytes) -> None:
        """The client sends this; what it leads to is done when this returns."""
        if self.client.state & ConnectionState.CAN_READ:
            await self._feed(events.DataReceived(self.client, data))

    async def close(self) -> None:
        """The client hangs up."""
        if self.client.state & ConnectionState.CAN_READ:
            self.client.state &= ~ConnectionState.CAN_READ
            await self._feed(events.ConnectionClosed(self.client))

    async def _feed(self, event: events.Event) -> None:
        waiting = deque([event])
        while waiting:
            for command in self._layer.handle_event(waiting.popleft()):
                waiting.extend(await self._carry_out(command))

    async def _carry_out(self, command: commands.Command) -> Iterable[events.Event]:
        match command:
            case commands.OpenConnection(connection=server):
                return [events.OpenConnectionCompleted(command, await self._open(server))]
            case commands.SendData(connection=Client(), data=data):
                self.got += data
            case commands.SendData(connection=Server(address=(host, port)), data=data):
                return self._upstream_got(command.connection, (host, port), data)
            case commands.CloseConnection(connection=connection):
                connection.state = ConnectionState.CLOSED
            case commands.Log(message=message):
                self.logged.append(message)
            case commands.StartHook():
                assert isinstance(command, Hook)
                await self._addons.handle_lifecycle(command)
                return [events.HookCompleted(command)]
            case _:
                raise AssertionError(f"unexpected: {command}")
        return []

    async def _open(self, server: Server) -> str | None:
        await self._addons.handle_lifecycle(ServerConnectHook(ServerConnectionHookData(server, self.client)))
        if server.error:
            return server.error
        assert server.address is not None
        server.state = ConnectionState.OPEN
        self.sent.setdefault((server.address[0], server.address[1]), b"")
        return None

    def _upstream_got(self, server: Any, address: tuple[str, int], data: bytes) -> list[events.Event]:
        self.sent[address] += data
        # Answered once the head is there; a body may still come, as it may with a real server.
        is_head = b"\r\n\r\n" in data
        return [events.DataReceived(server, piece) for piece in self._answer] if is_head else []
