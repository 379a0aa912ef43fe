"""Received data is handled at once, and bodies are forwarded as they arrive."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from itertools import pairwise
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock, call

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from mitmproxy import options
from mitmproxy.connection import Connection, ConnectionState
from mitmproxy.proxy import events
from mitmproxy.proxy.commands import Command, OpenConnection
from mitmproxy.proxy.context import Context
from mitmproxy.proxy.layers.http import _http1
from mitmproxy.proxy.layers.http._events import RequestData
from mitmproxy.proxy.server import SimpleConnectionHandler
from mitmproxy.test import taddons, tflow

from mitm_gateway.patches.safety import heads
from mitm_gateway.patches.speed import sockets
from support.patched import applied

CLIENT = tflow.tclient_conn
UPSTREAM = tflow.tserver_conn
LAST_TURNS = sockets.TurnQueue(lambda: False)


class Handler:
    """A connection handler that notes what it is given."""

    def __init__(self) -> None:
        self.transports: dict[str, Any] = {}
        self.given: asyncio.Queue[bytes] = asyncio.Queue()
        self.drained = asyncio.Event()
        self.follows: dict[bytes, Callable[[], None]] = {}
        """An action for each piece, called while that piece is being handled."""
        self._server_event_lock = asyncio.Lock()

    async def server_event(self, event: events.DataReceived) -> None:
        self.given.put_nowait(event.data)
        self.follows.get(event.data, lambda: None)()

    async def drain_writers(self) -> None:
        await self.drained.wait()

    async def next(self, count: int) -> list[bytes]:
        return [await self.given.get() for _ in range(count)]


class Peer:
    """The two ends of a connection, of which the handler serves one."""

    def __init__(self, connection: Connection, handler: Handler, turns: sockets.TurnQueue) -> None:
        self.handler, self.connection, self.turns = handler, connection, turns
        self.connection.state = ConnectionState.OPEN
        self.served: asyncio.Future[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Future()

    async def open(self) -> None:
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        _, self.client = await asyncio.open_connection(*self.server.sockets[0].getsockname())
        self.reader, self.writer = await self.served

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sockets.DirectReader(self.handler, self.connection, reader, writer, self.turns, LAST_TURNS)
        self.served.set_result((reader, writer))

    async def close(self) -> None:
        for writer in (self.client, self.writer):
            writer.close()
            await writer.wait_closed()
        self.server.close()


@asynccontextmanager
async def peers(*kinds: Callable[[], Connection], has_streams: bool = True) -> AsyncIterator[list[Peer]]:
    handler, turns = Handler(), sockets.TurnQueue(lambda: has_streams)
    made = [Peer(kind(), handler, turns) for kind in kinds]
    async with AsyncExitStack() as stack:
        for peer in made:
            await peer.open()
            stack.push_async_callback(peer.close)
        yield made


@pytest.fixture(params=[CLIENT, UPSTREAM])
async def peer(request: pytest.FixtureRequest) -> AsyncIterator[Peer]:
    async with peers(request.param) as (made,):
        yield made


async def test_a_piece_is_handled_at_once_and_the_end_through_the_stream(peer: Peer) -> None:
    peer.client.write(b"one")
    assert await peer.handler.given.get() == b"one"
    peer.client.write(b"two")
    assert await peer.handler.given.get() == b"two"
    peer.client.write_eof()
    assert await peer.reader.read() == b""


async def test_data_received_while_an_event_is_handled_waits_in_order(peer: Peer) -> None:
    async with peer.handler._server_event_lock:
        peer.client.write(b"one")
        assert await peer.reader.readexactly(1) == b"o"
    peer.client.write(b"two")
    assert await peer.reader.readexactly(5) == b"netwo"
    assert peer.handler.given.empty()
    peer.client.write(b"three")
    assert await peer.handler.given.get() == b"three"


async def test_data_waits_behind_an_event_that_waited(peer: Peer) -> None:
    lock = peer.handler._server_event_lock
    await lock.acquire()
    waiting = asyncio.create_task(lock.acquire())
    await asyncio.sleep(0)
    lock.release()  # the other has its turn in the next pass of the loop
    protocol: Any = peer.writer.transport.get_protocol()
    protocol.data_received(b"one")
    assert await waiting
    assert await peer.reader.readexactly(3) == b"one"
    assert peer.handler.given.empty()


async def test_reading_pauses_while_a_writer_is_full(peer: Peer) -> None:
    held: Any = SimpleNamespace(_paused=True)
    full = asyncio.StreamWriter(peer.writer.transport, held, None, asyncio.get_running_loop())
    peer.handler.transports["other"] = SimpleNamespace(writer=full)
    transport: Any = peer.writer.transport
    peer.client.write(b"one")
    assert await peer.handler.given.get() == b"one"
    assert not transport.is_reading()
    peer.handler.drained.set()
    peer.handler.transports.clear()
    peer.client.write(b"two")
    assert await peer.handler.given.get() == b"two"


async def test_less_is_received_at_a_time_while_a_piece_takes_long(
    peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 0.04, 1.0, 1.001, 2.0, 2.001])
    monkeypatch.setattr(sockets, "perf_counter", lambda: next(clock))
    transport: Any = peer.writer.transport
    sizes = []
    for size in (100_000, 10_000, 10_000):
        transport.get_protocol()._handle(b"a" * size)
        sizes.append(transport.max_size)
    assert sizes == [10_000, 20_000, 40_000]


async def test_nothing_is_read_from_a_connection_that_was_closed_a_moment_ago(peer: Peer) -> None:
    peer.connection.state = ConnectionState.CLOSED
    peer.client.write(b"late")
    peer.client.write_eof()
    assert await peer.reader.read() == b""
    assert peer.handler.given.empty()


async def test_events_go_before_requests_that_arrive_with_them_and_between_two_requests() -> None:
    async with peers(CLIENT, CLIENT, UPSTREAM) as (one, two, upstream):
        upstream.handler.follows = {b"request": lambda: upstream.client.write(b"event")}
        for each, data in ((one, b"request"), (two, b"request"), (upstream, b"event")):
            each.client.write(data)
        given = await upstream.handler.next(5)
        assert given == [b"event", b"request", b"event", b"request", b"event"]


@pytest.mark.parametrize(
    ("has_streams", "order"), [(True, [b"one", b"event", b"two"]), (False, [b"one", b"two", b"event"])]
)
async def test_requests_wait_for_events_only_while_a_response_streams(
    has_streams: bool, order: list[bytes]
) -> None:
    async with peers(CLIENT, CLIENT, UPSTREAM, has_streams=has_streams) as (one, two, upstream):
        upstream.handler.follows = {b"one": lambda: upstream.client.write(b"event")}
        one.client.write(b"one")
        two.client.write(b"two")
        assert await upstream.handler.next(3) == order


async def test_the_rest_of_long_heads_waits_for_the_first_pieces_of_others() -> None:
    async with peers(CLIENT, CLIENT, CLIENT, has_streams=False) as made:
        for each, data in zip(made, (b"rest", b"rest", b"first"), strict=True):
            setattr(each.connection, heads._UNFINISHED, data == b"rest")
            each.client.write(data)
        assert await made[0].handler.next(3) == [b"first", b"rest", b"rest"]


async def test_a_request_whose_upstream_has_been_reached_waits_for_events_too() -> None:
    given: asyncio.Queue[str] = asyncio.Queue()
    opened = events.OpenConnectionCompleted(OpenConnection(UPSTREAM()), None)

    def handle_event(event: events.Event) -> Iterator[Command]:
        given.put_nowait(type(event).__name__)
        return iter(())

    with applied("direct-reads"):
        handler: Any = object.__new__(SimpleConnectionHandler)
        handler.layer, handler._server_event_lock = SimpleNamespace(handle_event=handle_event), asyncio.Lock()
        handler.timeout_watchdog = SimpleNamespace(register_activity=lambda: None)
        loop = asyncio.get_running_loop()
        loop.call_soon(loop.call_soon, given.put_nowait, "an event of a stream")
        await handler.server_event(opened)
    assert [given.get_nowait() for _ in range(2)] == ["an event of a stream", "OpenConnectionCompleted"]


async def test_a_connection_that_waits_for_its_turn_is_closed_if_the_client_leaves() -> None:
    opened, closed = events.OpenConnectionCompleted(OpenConnection(UPSTREAM()), None), asyncio.Event()
    with applied("direct-reads"):
        handler: Any = object.__new__(SimpleConnectionHandler)
        handler.transports = {
            opened.command.connection: SimpleNamespace(writer=SimpleNamespace(close=closed.set))
        }
        waiting = asyncio.ensure_future(handler.server_event(opened))
        asyncio.get_running_loop().call_soon(waiting.cancel)
        with pytest.raises(asyncio.CancelledError):
            await waiting
    assert closed.is_set()


async def test_an_upstream_is_closed_though_its_end_is_cancelled_twice(peer: Peer) -> None:
    handler: Any = object.__new__(SimpleConnectionHandler)
    handler.transports = {peer.connection: SimpleNamespace(reader=peer.reader, writer=peer.writer)}
    handler.max_conns, handler._server_event_lock = defaultdict(lambda: None), asyncio.Lock()
    async with handler._server_event_lock:
        with applied("http2-back-pressure"):
            serving = asyncio.create_task(handler.handle_connection(peer.connection))
            for _ in range(2):  # by the end of its stream, and by the end of the client
                await asyncio.sleep(0)
                serving.cancel()
            await asyncio.wait([serving])
    assert peer.writer.is_closing()


async def test_requests_are_handled_beside_a_stream_that_never_pauses() -> None:
    async with peers(CLIENT, CLIENT, UPSTREAM) as (one, two, upstream):
        upstream.handler.follows = {b"event": lambda: upstream.client.write(b"event")}
        for each, data in ((upstream, b"event"), (one, b"request"), (two, b"request")):
            each.client.write(data)
        waiting = 2
        while waiting:
            waiting -= await upstream.handler.given.get() == b"request"
        upstream.handler.follows.clear()


async def test_data_that_waits_comes_before_what_follows_it_on_its_connection_and_before_its_end() -> None:
    async with peers(CLIENT, CLIENT) as (one, two):
        one.handler.follows = {b"one": lambda: one.client.write(b" and more")}
        one.client.write(b"one")
        two.client.write(b"two")
        two.client.write_eof()
        assert sorted(await one.handler.next(3)) == [b" and more", b"one", b"two"]
        assert await two.reader.read() == b""


def close(peer: Peer) -> None:
    peer.connection.state = ConnectionState.CLOSED
    peer.writer.close()


async def test_data_that_waits_is_dropped_if_its_connection_is_closed() -> None:
    async with peers(CLIENT, CLIENT) as (one, two):
        one.handler.follows = {b"one": partial(close, two), b"two": partial(close, one)}
        one.client.write(b"one")
        two.client.write(b"two")
        await one.handler.next(1)
        turn = asyncio.Event()
        one.turns.add(turn.set)
        await turn.wait()
        assert one.handler.given.empty()


def told(pieces: list[bytes]) -> list[object]:
    """Return the events of a server's layer for a request in these pieces."""
    client = CLIENT()
    layer = _http1.Http1Server(Context(client, options.Options()))
    found: list[object] = []
    for event in (events.Start(), *(events.DataReceived(client, piece) for piece in pieces)):
        for command in layer.handle_event(event):
            told = getattr(command, "event", command)
            found.append(told.data if isinstance(told, RequestData) else type(told).__name__)
    return found


CHUNK = b"%x\r\n%s\r\n"
CHUNKS = st.tuples(
    st.binary(max_size=20), st.sampled_from([CHUNK] * 6 + [b"%X;a=b\r\n%s\r\n", b"0%x\r\n%s\r\r"])
)


def framed(body: bytes, chunks: list[tuple[bytes, bytes]] | None) -> bytes:
    if chunks is None:
        return b"Content-Length: %d\r\n\r\n%s" % (len(body), body)
    return b"Transfer-Encoding: chunked\r\n\r\n" + b"".join(form % (len(data), data) for data, form in chunks)


@given(
    body=st.binary(max_size=40),
    chunks=st.none() | st.lists(CHUNKS, max_size=6),
    more=st.binary(max_size=10),
    cuts=st.lists(st.integers(0, 250), max_size=6),
)
@example(body=b"", chunks=[(b"one", CHUNK), (b"two", CHUNK), (b"", CHUNK)], more=b"", cuts=[])
def test_a_body_is_reported_as_mitmproxy_reports_it(
    body: bytes, chunks: list[tuple[bytes, bytes]] | None, more: bytes, cuts: list[int]
) -> None:
    whole = b"POST / HTTP/1.1\r\nHost: h\r\n%s%s" % (framed(body, chunks), more)
    places = sorted([0, whole.index(b"\r\n\r\n") + 4, *cuts, len(whole)])
    pieces = [whole[a:b] for a, b in pairwise(places)]
    expected = told(pieces)
    with taddons.context(), applied("plain-bodies"):
        assert told(pieces) == expected
    assert expected[0] == "RequestHeaders"


# ---- what is written ----


@pytest.fixture
def transport() -> Mock:
    return Mock(is_closing=lambda: False)


@pytest.fixture
async def writer(transport: Mock) -> asyncio.StreamWriter:
    return asyncio.StreamWriter(transport, Mock(), None, asyncio.get_running_loop())


async def test_pieces_leave_together_and_in_order(transport: Mock, writer: asyncio.StreamWriter) -> None:
    holding: list[sockets.Cork] = []
    cork = sockets.Cork(writer, holding)
    for piece in (b"head", b"body"):
        writer.write(piece)
    assert (transport.method_calls, holding) == ([], [cork])
    cork.flush()
    cork.flush()
    assert transport.method_calls == [call.write(b"headbody")]


async def test_large_pieces_are_not_copied(transport: Mock, writer: asyncio.StreamWriter) -> None:
    cork, body = sockets.Cork(writer, []), bytes(1 << 20)
    writer.write(b"head")
    writer.write(body)
    cork.flush()
    assert transport.method_calls == [call.write(b"head"), call.write(body)]
    assert transport.write.call_args.args[0] is body


async def test_held_bytes_are_sent_before_the_end_and_when_the_patch_is_removed(
    transport: Mock, writer: asyncio.StreamWriter
) -> None:
    cork = sockets.Cork(writer, [])
    writer.write(b"last")
    writer.write_eof()
    writer.write(b"more")
    cork.take_out()
    writer.write(b"free")
    assert transport.method_calls == [
        call.write(b"last"), call.write_eof(), call.write(b"more"), call.write(b"free"),
    ]  # fmt: skip
