"""Sockets: received data is handled at once, and the pieces of a response are written together."""

from __future__ import annotations

import asyncio
import re
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from time import perf_counter
from typing import Any

from h11._readers import ChunkedReader, ContentLengthReader
from mitmproxy.connection import Client, ConnectionState
from mitmproxy.proxy import events, server
from mitmproxy.proxy.layers.http import _http1
from mitmproxy.proxy.layers.http._base import ReceiveHttp

from ..patch import Patches, Unexpected
from ..safety.framing import divided
from ..safety.heads import has_unfinished_head
from ..safety.turns import has_waiting_data

# Pieces up to this total are joined; copying more takes longer than a second write.
_JOINED_BYTES = 128 << 10
# A peer's next piece is smaller if this one took longer than a turn: hostile events take a microsecond a byte.
_TURN_S, _LEAST_BYTES, _MOST_BYTES = 0.004, 4 << 10, 256 << 10
# The first piece of a client is a head.
_FIRST_OF_CLIENT, _FIRST_OF_SERVER = 16 << 10, 128 << 10
# Flags are compared as numbers, because the operators of enum.Flag are slow.
_CAN_READ = ConnectionState.CAN_READ.value


def direct_reads(patches: Patches) -> None:
    """Pass received data to the layers at once, without a buffer and a waiting task."""
    handler = server.ConnectionHandler
    begin, original, take = handler.handle_client, handler.handle_connection, handler.server_event
    reader = asyncio.StreamReader()
    reader._buffer, asyncio.StreamReaderProtocol(reader)._paused  # type: ignore[attr-defined]
    turns, last_turns = TurnQueue(patches.gateway.has_streams), TurnQueue(lambda: False)

    async def handle_client(self: Any) -> None:
        writer = self.transports[self.client].writer
        if isinstance(writer, asyncio.StreamWriter):
            # Before Python 3.12 the first piece arrives before `handle_connection` begins.
            writer.transport.max_size = _FIRST_OF_CLIENT  # type: ignore[attr-defined]
        await begin(self)

    async def handle_connection(self: Any, connection: Any) -> None:
        io = self.transports[connection]
        if isinstance(io.reader, asyncio.StreamReader) and isinstance(io.writer, asyncio.StreamWriter):
            DirectReader(self, connection, io.reader, io.writer, turns, last_turns)
        await original(self, connection)

    async def server_event(self: Any, event: events.Event) -> None:
        # A request may have waited for the connection to its upstream.
        if type(event) is events.OpenConnectionCompleted and turns.must_wait:
            try:
                await turns.wait()
            except (
                asyncio.CancelledError
            ):  # the client has left; mitmproxy closes only what it has begun to read
                if (writer := self.transports[event.command.connection].writer) is not None:
                    writer.close()
                raise
        await take(self, event)

    patches.set(handler, "handle_client", handle_client)
    patches.set(handler, "handle_connection", handle_connection)
    patches.set(handler, "server_event", server_event)


class TurnQueue:
    """Work that lets the data of upstreams pass first: each pass of the event loop does one piece of it, at its end.

    A request takes as long as some thirty events of streams, which would otherwise wait for all the requests that
    arrived with them. Where no response streams, requests need no turns.
    """

    def __init__(self, has_streams: Callable[[], bool]) -> None:
        self._has_streams = has_streams
        self._waiting: deque[Callable[[], None]] = deque()

    @property
    def must_wait(self) -> bool:
        """Return whether work waits already, or an event of a stream may be due in this pass of the loop."""
        if self._waiting:
            return True
        return self._has_streams() and bool(getattr(asyncio.get_running_loop(), "_ready", ()))

    def add(self, action: Callable[[], None]) -> None:
        """Call the action in its turn."""
        self._waiting.append(action)
        if len(self._waiting) == 1:
            self._schedule()

    async def wait(self) -> None:
        """Wait for a turn."""
        turn = asyncio.get_running_loop().create_future()
        self.add(lambda: None if turn.cancelled() else turn.set_result(None))
        await turn

    def _schedule(self) -> None:
        # The loop calls due timers after the sockets that are ready, and `call_soon` before them.
        asyncio.get_running_loop().call_later(0, self._take)

    def _take(self) -> None:
        try:
            self._waiting[0]()
        finally:
            self._waiting.popleft()
            if self._waiting:
                self._schedule()


class DirectReader(asyncio.Protocol):
    """A stream's protocol that handles each piece as it arrives.

    The end of a connection, and data that cannot be handled at once, still pass through the stream.
    """

    def __init__(
        self,
        handler: Any,
        connection: Any,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        turns: TurnQueue,
        last_turns: TurnQueue,
    ) -> None:
        self._turns = turns if isinstance(connection, Client) else None
        self._last_turns = last_turns
        self._handler = handler
        self._connection = connection
        self._reader = reader
        self._transport: Any = writer.transport
        self._stream: Any = writer.transport.get_protocol()
        self._draining: asyncio.Future[None] | None = None
        for name in ("connection_lost", "eof_received", "pause_writing", "resume_writing"):
            setattr(self, name, getattr(self._stream, name))
        self._read_at_most(_FIRST_OF_CLIENT if self._turns else _FIRST_OF_SERVER)
        writer.transport.set_protocol(self)

    def data_received(self, data: bytes) -> None:
        """Handle a piece now or, if a client sent it, in its turn; until then no more is read.

        The rests of long heads wait in a separate queue, so that hundreds of them delay no client that connects.
        """
        turns, is_rest = self._turns, has_unfinished_head(self._connection)
        if turns is None or not (is_rest or turns.must_wait):
            self._handle(data)
            return
        self._transport.pause_reading()
        (self._last_turns if is_rest else turns).add(partial(self._resume_with, data))

    def _resume_with(self, data: bytes) -> None:
        self._transport.resume_reading()
        self._handle(data)

    def _handle(self, data: bytes) -> None:
        """Handle a piece, or leave it to the stream while another event is being handled."""
        if not self._connection.state._value_ & _CAN_READ:
            return  # closed by this side a moment ago
        lock = self._handler._server_event_lock
        if self._reader._buffer or lock.locked() or lock._waiters:  # type: ignore[attr-defined]
            self._stream.data_received(data)
            return
        event = self._handler.server_event(events.DataReceived(self._connection, data))
        began = perf_counter()
        try:
            event.send(None)
        except StopIteration:
            pass
        else:
            raise RuntimeError("server_event awaited something")
        self._read_at_most(_next_size(self._most, len(data), perf_counter() - began))
        if has_waiting_data(self._connection) or _full(self._handler.transports.values()):
            self._transport.pause_reading()
            self._draining = asyncio.ensure_future(self._drain())

    def _read_at_most(self, size: int) -> None:
        self._most = self._transport.max_size = size

    async def _drain(self) -> None:
        await self._handler.drain_writers()
        self._transport.resume_reading()


def _next_size(most: int, size: int, took_s: float) -> int:
    """Return how many bytes the next piece may have after one of this size, so that it takes a turn at most."""
    if took_s > _TURN_S:
        return max(int(size * _TURN_S / took_s), _LEAST_BYTES)
    return min(2 * most, _MOST_BYTES)


def _full(transports: Iterable[Any]) -> list[Any]:
    """Return the connections to which more has been written than they take at present."""
    return [
        io
        for io in transports
        if isinstance(io.writer, asyncio.StreamWriter) and io.writer._protocol._paused  # type: ignore[attr-defined]
    ]


def plain_bodies(patches: Patches) -> None:
    """Forward the pieces of a body of known length without copying them, and whole chunks without h11's buffer."""
    connection = _http1.Http1Connection
    original = connection._handle_event
    if list(vars(ContentLengthReader(1))) != ["_length", "_remaining"]:
        raise Unexpected("h11's ContentLengthReader")
    if set(vars(ChunkedReader())) != {"_bytes_in_chunk", "_bytes_to_discard", "_reading_trailer"}:
        raise Unexpected("h11's ChunkedReader")

    def handle_event(self: Any, event: events.Event) -> Any:
        if type(event) is events.DataReceived and self.state == self.read_body and not self.buf:
            reader, data = self.body_reader, event.data
            if type(reader) is ContentLengthReader and 0 < len(data) <= reader._remaining:
                return _passed_on(self, reader, event)
            if type(reader) is ChunkedReader and not any(vars(reader).values()):
                chunks, rest = _whole_chunks(data)
                if chunks:
                    return _chunks_passed_on(self, chunks, rest, original)
        return original(self, event)

    patches.set(connection, "_handle_event", handle_event)


def join_writes(patches: Patches) -> None:
    """Write what answers one event to a client at once.

    Upstreams get the head first: a server that waits can read it while the body follows.
    """
    handler = server.ConnectionHandler
    serve, take = handler.handle_connection, handler.server_event
    corks: weakref.WeakSet[Cork] = weakref.WeakSet()
    holding: list[Cork] = []

    async def handle_connection(self: Any, connection: Any) -> None:
        writer = self.transports[connection].writer
        if type(connection) is Client and isinstance(writer, asyncio.StreamWriter):
            corks.add(Cork(writer, holding))  # the writer keeps it alive
        await serve(self, connection)

    async def server_event(self: Any, event: Any) -> None:
        try:
            await take(self, event)
        finally:
            while holding:
                holding.pop().flush()

    def undo() -> None:
        for cork in corks:
            cork.take_out()

    patches.set(handler, "handle_connection", handle_connection)
    patches.set(handler, "server_event", server_event)
    patches.on_undo(undo)


def _passed_on(connection: Any, reader: ContentLengthReader, event: events.DataReceived) -> Iterator[Any]:
    reader._remaining -= len(event.data)
    yield ReceiveHttp(connection.ReceiveData(connection.stream_id, event.data))
    if not reader._remaining:
        yield from connection.read_body(event)  # detects the end


# A chunk's head without extensions; few are larger than 16 MB.
_CHUNK = re.compile(rb"([0-9a-fA-F]{1,6})\r\n")


def _whole_chunks(data: bytes) -> tuple[list[bytes], bytes]:
    """Return the contents of the whole chunks at the beginning, and what follows them."""
    contents, end = [], 0
    while (head := _CHUNK.match(data, end)) and (size := int(head[1], 16)):
        start, stop = head.end(), head.end() + size
        if data[stop : stop + 2] != b"\r\n":
            break
        contents.append(data[start:stop])
        end = stop + 2
    return contents, data[end:]


def _chunks_passed_on(connection: Any, chunks: list[bytes], rest: bytes, handle: Any) -> Iterator[Any]:
    for content in divided(chunks):
        yield ReceiveHttp(connection.ReceiveData(connection.stream_id, content))
    if rest:
        yield from handle(connection, events.DataReceived(connection.conn, rest))


class Cork:
    """The pieces written to a connection, held until `flush` or the connection's end.

    It is in the list `holding` while it holds any.
    """

    def __init__(self, writer: asyncio.StreamWriter, holding: list[Cork]) -> None:
        self._transport = writer.transport
        self._writer = weakref.ref(writer)
        self._holding = holding
        self._held: list[bytes] = []
        writer.write = self._write  # type: ignore[method-assign, assignment]
        writer.write_eof = self._write_eof  # type: ignore[method-assign]

    def _write(self, data: bytes) -> None:
        if not self._held:
            self._holding.append(self)
        self._held.append(data)

    def flush(self) -> None:
        """Write the held pieces."""
        held = self._held
        if not held:
            return
        if not self._transport.is_closing():
            if len(held) > 1 and sum(map(len, held)) <= _JOINED_BYTES:
                self._transport.write(b"".join(held))
            else:
                for piece in held:
                    self._transport.write(piece)
        held.clear()

    def take_out(self) -> None:
        """Restore the connection's own write methods."""
        self.flush()
        writer = self._writer()
        if writer is not None:
            del writer.write, writer.write_eof

    def _write_eof(self) -> None:
        self.flush()
        self._transport.write_eof()
