"""Connections to upstreams: opened by the gateway, which knows the proxies in front of them."""

import asyncio
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from types import ModuleType
from typing import Any

from mitmproxy import http
from mitmproxy.connection import Server
from mitmproxy.proxy import commands, server
from mitmproxy.proxy.layer import NextLayer
from mitmproxy.proxy.layers.http import HttpStream
from mitmproxy.proxy.layers.http._base import ReceiveHttp
from mitmproxy.proxy.layers.http._events import ResponseHeaders
from mitmproxy.proxy.layers.http._http1 import Http1Client

from ..patch import LayerSteps, Patches, Unexpected
from .error_pages import OWN_FAULT, json_page
from .framing import fail

_opening: ContextVar[tuple[Any, Server]] = ContextVar("the connection that is being opened")


def open_connections(patches: Patches) -> None:
    """Let the gateway open each TCP connection, and end a request whose proxy asks for a login."""
    handler, gateway = server.ConnectionHandler, patches.gateway
    opened = handler.open_connection
    if vars(server)["asyncio"] is not asyncio or "open_connection" not in opened.__code__.co_names:
        raise Unexpected("ConnectionHandler.open_connection")

    async def open_connection(self: Any, command: Any) -> None:
        _opening.set((self.client, command.connection))  # in the task of this connection
        await opened(self, command)

    async def dial(host: str, port: int, **options: Any) -> Any:
        try:
            return await gateway.dial(*_opening.get(), **options)
        except OSError:
            raise
        except Exception as fault:  # mitmproxy would leave the client waiting
            raise OSError(f"{OWN_FAULT}internal fault ({type(fault).__name__})") from None

    patches.set(handler, "open_connection", open_connection)
    patches.set(server, "asyncio", _Asyncio(dial))
    _end_at_407(patches)


def dial_tunnels_first(patches: Patches) -> None:
    """Open the connection of an undecrypted tunnel before the CONNECT is answered, and answer 502 if that fails."""
    answer: Callable[[Any], LayerSteps] = HttpStream.handle_connect_regular
    gateway = patches.gateway

    def handle_connect_regular(self: Any) -> LayerSteps:
        if self.flow.response or not gateway.dials_first(self.flow):
            yield from answer(self)
            return
        if fault := (yield commands.OpenConnection(self.context.server)):
            body = json_page(502, fault)
            self.flow.response = http.Response.make(502, body, {"content-type": "application/json"})
        self.child_layer = NextLayer(self.context)
        yield from self.handle_connect_finish()

    patches.set(HttpStream, "handle_connect_regular", handle_connect_regular)


class _Asyncio(ModuleType):
    """The module `asyncio` as `mitmproxy.proxy.server` sees it."""

    def __init__(self, dial: Any) -> None:
        super().__init__("asyncio")
        self.open_connection = dial

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio, name)


def _end_at_407(patches: Patches) -> None:
    read, explain = Http1Client.read_headers, patches.gateway.asks_for_login

    def read_headers(self: Any, event: Any) -> Iterable[Any]:
        for command in read(self, event):
            head = command.event if isinstance(command, ReceiveHttp) else None
            if (
                isinstance(head, ResponseHeaders)
                and head.response.status_code == 407
                and (reason := explain(self.conn, head.response))
            ):
                yield from fail(self, reason)
                return
            yield command

    patches.set(Http1Client, "read_headers", read_headers)
