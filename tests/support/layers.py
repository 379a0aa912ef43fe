"""mitmproxy's own HTTP layers with the gateway in them, in this process: bytes in, bytes out, no socket, no clock."""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from hypothesis import currently_in_test_context, event
from mitmproxy.addons.next_layer import NextLayer
from mitmproxy.addons.proxyserver import Proxyserver
from mitmproxy.addons.save import Save
from mitmproxy.connection import Client, ConnectionState, Server
from mitmproxy.hooks import Hook
from mitmproxy.http import HTTPFlow
from mitmproxy.proxy import commands, events
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers import HttpLayer
from mitmproxy.proxy.layers.http import HTTPMode
from mitmproxy.proxy.mode_specs import ProxyMode
from mitmproxy.proxy.server_hooks import ServerConnectHook, ServerConnectionHookData
from mitmproxy.test import taddons

from mitm_gateway.mitm.addon import GatewayAddon
from support.constants import API, CK, CK_MARK, GW, GW_MARK

# A host without a rule, for what mitmproxy and the patches alone do.
HOST = "upstream.test"
TUNNEL: dict[str, Any] = {"target": (HOST, 443), "sni": HOST, "upstream_tls": False}
HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
UPSTREAM = ("127.0.0.1", 9)  # in clear, so that no TLS layer stands between; nothing is really connected
RULES = f"""
credentials: {{gw: {{env: GW_KEY}}}}
rules:
  - name: gw
    match: {{host: {API}}}
    upstream: http://127.0.0.1:9
    auth: {{scheme: bearer, credential: gw}}
    models: {{map: {{claude-x: gw-model}}}}
  - name: head
    match: {{host: socket.test}}
    upstream: http://127.0.0.1:9
    auth: {{scheme: bearer, credential: gw}}
"""
BODY = b'{"model":"claude-x","messages":[]}'
LINE = b"POST /v1/messages HTTP/1.1"
KEY = f"x-api-key: {CK}".encode()
REST = f"Host: {API}\r\nContent-Type: application/json\r\nContent-Length: {len(BODY)}\r\n".encode()
REQUEST = b"\r\n".join((LINE, KEY, REST, BODY))
ANSWER = (
    b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 20\r\n\r\n{"model":"gw-model"}'
)
WAYS: dict[str, dict[str, Any]] = {
    "tunnel": {"target": (API, 443), "sni": API},
    "reverse": {"target": (API, 443), "mode": f"reverse:https://{API}"},
    "transparent": {"target": ("203.0.113.7", 443), "sni": API, "mode": "transparent"},
    "plain": {},
}
# The rule of this host reads no body.
SOCKET_HOST = "socket.test"
SOCKET: dict[str, Any] = {"target": (SOCKET_HOST, 443), "sni": SOCKET_HOST}


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
        upstream_tls: bool = True,
        upstream_alpn: bytes | None = None,
        answer: bytes = b"",
        cut: int = 1 << 20,
    ) -> None:
        self._addons = gateway.master.addons
        self._upstream_alpn = upstream_alpn
        self._answer = pieces(answer, cut)
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
            context.server.tls = upstream_tls
        self._layer = HttpLayer(context, HTTPMode.regular if target is None else HTTPMode.transparent)
        self.got = b""  # by the client
        self.sent: dict[tuple[str, int], bytes] = {}  # to each address that was connected to
        self.logged: list[str] = []
        self.turns = 0
        """How often the others had their turn."""
        self.at_turn: dict[int, Callable[[], Awaitable[None]]] = {}
        """What the client does at some of these."""
        self.flows: list[HTTPFlow] = []  # of each hook
        self.kept: set[tuple[str, str]] = set()  # keys that the flow contained after a hook

    async def start(self) -> None:
        """Connect the client."""
        await self._feed(events.Start())

    async def receive(self, data: bytes) -> None:
        """Send bytes as the client; everything that follows from them is done when this returns."""
        if self.client.state & ConnectionState.CAN_READ:
            await self._feed(events.DataReceived(self.client, data))

    async def upstream_sends(self, data: bytes) -> None:
        """Send bytes as the upstream of the first request."""
        await self._feed(events.DataReceived(self.flows[0].server_conn, data))

    async def close(self) -> None:
        """Hang up as the client."""
        if self.client.state & ConnectionState.CAN_READ:
            self.client.state &= ~ConnectionState.CAN_READ
            await self._feed(events.ConnectionClosed(self.client))

    @property
    def http2(self) -> Any:
        """The state of the client's HTTP/2 connection."""
        layer: Any = self._layer.connections[self.client]
        return layer.h2_conn

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
            case commands.RequestWakeup():
                self.turns += 1
                if action := self.at_turn.get(self.turns):
                    await action()
                return [events.Wakeup(command)]
            case commands.Log(message=message):
                self.logged.append(message)
            case commands.StartHook():
                assert isinstance(command, Hook)
                await self._addons.handle_lifecycle(command)
                self._look_for_keys(command)
                return [events.HookCompleted(command)]
            case _:
                raise AssertionError(f"unexpected: {command}")
        return []

    def _look_for_keys(self, hook: Hook) -> None:
        """Note the keys that a flow contains after a hook."""
        if isinstance(flow := hook.args()[0], HTTPFlow):
            self.flows.append(flow)
            kept = str(flow.get_state())
            self.kept |= {(hook.name, mark) for mark in (GW_MARK, CK_MARK) if mark in kept}

    async def _open(self, server: Server) -> str | None:
        await self._addons.handle_lifecycle(ServerConnectHook(ServerConnectionHookData(server, self.client)))
        if server.error:
            return server.error
        assert server.address is not None
        server.state, server.alpn = ConnectionState.OPEN, self._upstream_alpn
        self.sent.setdefault((server.address[0], server.address[1]), b"")
        return None

    def _upstream_got(self, server: Any, address: tuple[str, int], data: bytes) -> list[events.Event]:
        self.sent[address] += data
        # Answered once the head is there; a body may still come, as it may with a real server.
        is_head = data[3:4] == b"\1" if self._upstream_alpn == b"h2" else b"\r\n\r\n" in data
        return [events.DataReceived(server, piece) for piece in self._answer] if is_head else []


def pieces(data: bytes, size: int) -> list[bytes]:
    """Cut bytes into pieces of a size."""
    return [data[place : place + size] for place in range(0, len(data), size)]


async def connected(context: taddons.context, *sent: bytes, **way: Any) -> Connection:
    """Return the connection of a client that has sent these pieces."""
    connection = Connection(context, **way)
    await connection.start()
    for piece in sent:
        await connection.receive(piece)
    return connection


class Gateway:
    """The addon among mitmproxy's own, with flows written to a file, and a loop to run it in."""

    def __init__(self, folder: Path, runner: asyncio.Runner) -> None:
        self._run, self._save, self._addon = runner.run, Save(), GatewayAddon()
        self._flows, self._seen = folder / "flows", 0
        rules = folder / "rules.yaml"
        rules.write_text(RULES)
        self._run(self._start(str(rules)))

    async def _start(self, rules: str) -> None:
        self._context = taddons.context(Proxyserver(), self._addon, self._save, NextLayer())
        self._context.__enter__()
        self._context.configure(self._addon, gateway_rules=rules)
        self._context.options.update(save_stream_file=str(self._flows))
        self._addon.running()

    @property
    def under_way(self) -> int:
        """Return how many requests have not ended."""
        return len(self._addon._requests)

    def set(self, **options: Any) -> None:
        """Set options."""

        async def update() -> None:
            self._context.options.update(**options)

        self._run(update())

    def close(self) -> None:
        async def stop() -> None:
            self._addon.done()
            self._save.done()

        self._run(stop())
        self._context.__exit__(None, None, None)

    def exchange(
        self,
        sent: bytes,
        answer: bytes,
        cut: int = 1 << 20,
        *,
        answer_cut: int = 1 << 20,
        way: Mapping[str, Any] = WAYS["tunnel"],
    ) -> Connection:
        """Send a request in pieces and hang up; the upstream's response arrives in pieces too."""

        async def run() -> Connection:
            connection = await connected(
                self._context, *pieces(sent, cut), answer=answer, cut=answer_cut, **way
            )
            await connection.close()
            return connection

        return self._run(run())

    def check(self, connection: Connection, *, is_plain: bool = False, breaks_answer: bool = False) -> None:
        """Check I1 to I4, as far as one connection shows them."""
        elsewhere = {address for address in connection.sent if address != UPSTREAM}
        # A plain client may name any host, and send its own key there.
        assert not elsewhere or is_plain, elsewhere
        assert not any(host == API for host, _ in elsewhere)
        assert not any(GW_MARK.encode() in connection.sent[address] for address in elsewhere), "I2"
        assert CK_MARK.encode() not in connection.sent.get(UPSTREAM, b""), "I1"
        assert GW_MARK.encode() not in connection.got, "I3"
        # Over HTTP/2 mitmproxy quotes the client's faulty bytes in GOAWAY.
        assert CK_MARK.encode() not in connection.got or connection.client.alpn == b"h2", "I3"
        assert not any(mark == GW_MARK or not is_plain for _, mark in connection.kept), connection.kept
        kept = self._kept()
        assert GW_MARK.encode() not in kept, "I3"
        # If a plain client names another host, or an unreadable one, no rule has anything to hide.
        assert CK_MARK.encode() not in kept or (is_plain and not connection.sent.get(UPSTREAM)), "I3"
        refused = connection.got.startswith((b"HTTP/1.1 4", b"HTTP/1.1 5"))
        assert not refused or breaks_answer or not any(connection.sent.values()), "I4"
        if currently_in_test_context():
            event("refused" if refused else "served" if connection.got else "silence")

    def _kept(self) -> bytes:
        assert self._save.stream is not None
        self._save.stream.fo.flush()
        with self._flows.open("rb") as file:
            file.seek(self._seen)
            kept = file.read()
        self._seen += len(kept)
        return kept

    def serves_the_next(self) -> None:
        """Check I4: the next request works after any other."""
        connection = self.exchange(REQUEST, ANSWER)
        self.check(connection)
        assert b'{"model":"claude-x"}' in connection.got
        assert f"Authorization: Bearer {GW}\r\n".encode() in connection.sent[UPSTREAM]
