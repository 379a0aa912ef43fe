"""An upstream on loopback that records every received byte and responds by a script."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from http.client import responses
from types import TracebackType
from typing import Protocol, Self, assert_never

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    RequestReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
    WindowUpdated,
)

from support.answers import Answer, Bytes, Close, Hang, Header, Reply, Script, Seen, Stream, claude_answers
from support.certificates import Authority

WAIT_S = 20.0  # far more than anything here takes; a wait that runs out is a failure
_IDLE_S = 120.0
_POLL_S = 0.02


@dataclass(slots=True)
class Connection:
    """An accepted connection: received bytes (after TLS) and the client's TLS name and protocol."""

    raw: bytearray = field(default_factory=bytearray)
    sni: str | None = None
    alpn: str | None = None


class _GoneError(Exception):
    """The peer hung up, or the recorder is being closed."""


class Recorder:
    """A threaded HTTP/1.1 (and with `http2`, over TLS, HTTP/2) server on a free loopback port.

    `script` may be replaced between requests. Gated streams of all requests share one gate.
    """

    def __init__(
        self,
        script: Script = claude_answers,
        *,
        tls: Authority | None = None,
        names: Sequence[str] = ("localhost", "127.0.0.1"),
        http2: bool = False,
    ) -> None:
        self.script = script
        self.requests: list[Seen] = []
        self.connections: list[Connection] = []
        self._changed = threading.Condition()
        self._gate = threading.Semaphore(0)
        self._closing = threading.Event()
        self._hangups = 0
        self._sockets: list[socket.socket] = []
        self._handshake = threading.local()
        self._context: ssl.SSLContext | None = None
        if tls is not None:
            alpn = ("h2", "http/1.1") if http2 else ("http/1.1",)
            self._context = tls.server_context(*names, alpn=alpn)
            self._context.sni_callback = self._note_sni
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True, name=f"recorder-{self.port}").start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def url(self) -> str:
        """Base URL with the address as a number: `http://127.0.0.1:PORT`, or `https://`."""
        return f"{'http' if self._context is None else 'https'}://127.0.0.1:{self.port}"

    @property
    def raw(self) -> bytes:
        """All bytes of all connections, one connection after the other."""
        return b"".join(bytes(connection.raw) for connection in self.connections)

    def release(self, chunks: int = 1) -> None:
        """Let gated streams send `count` more chunks."""
        self._gate.release(chunks)

    def wait_for_request(self, path: str | None = None, *, count: int = 1, timeout: float = WAIT_S) -> Seen:
        """The `count`-th request (to this path, without query), when it has arrived whole."""

        def found() -> Seen | None:
            fitting = [request for request in self.requests if path in (None, request.path)]
            return fitting[count - 1] if len(fitting) >= count else None

        with self._changed:
            request = self._changed.wait_for(found, timeout)
        if request is None:
            seen = [f"{request.method} {request.target}" for request in self.requests]
            raise TimeoutError(f"no request {count} to {path or 'any path'} in {timeout} s; seen: {seen}")
        return request

    def wait_for_bytes(self, marker: bytes, timeout: float = WAIT_S) -> None:
        """Return when these bytes have arrived, HTTP or not."""
        deadline = time.monotonic() + timeout
        while marker not in self.raw:
            if time.monotonic() > deadline:
                raise TimeoutError(f"no {marker!r} in {timeout} s")
            time.sleep(_POLL_S)

    def wait_for_hangup(self, *, count: int = 1, timeout: float = WAIT_S) -> None:
        """Return when `count` clients have left in the middle of a `Stream` or a `Hang`."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._hangups >= count, timeout):
                raise TimeoutError(f"{self._hangups} of {count} clients hung up in {timeout} s")

    def close(self) -> None:
        """Close the listener and every connection."""
        self._closing.set()
        for open_socket in (self._listener, *self._sockets):
            with contextlib.suppress(OSError):
                open_socket.shutdown(socket.SHUT_RDWR)
            open_socket.close()

    def _note_sni(self, _: ssl.SSLObject, name: str | None, __: ssl.SSLContext) -> None:
        self._handshake.connection.sni = name

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                accepted, _ = self._listener.accept()
            except OSError:
                return
            accepted.settimeout(_IDLE_S)
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = Connection()
            with self._changed:
                index = len(self.connections)
                self.connections.append(connection)
                self._sockets.append(accepted)
                self._changed.notify_all()
            threading.Thread(target=self._serve, args=(accepted, connection, index), daemon=True).start()

    def _serve(self, accepted: socket.socket, connection: Connection, index: int) -> None:
        try:
            if self._context is not None:
                self._handshake.connection = connection
                wrapped = self._context.wrap_socket(accepted, server_side=True)
                connection.alpn = wrapped.selected_alpn_protocol()
                self._sockets.append(wrapped)
                accepted = wrapped
            peer = _Peer(accepted, connection)
            if connection.alpn == "h2":
                _Http2(peer, index, self._answer).serve()
            else:
                while True:
                    request = _read_request(peer, index)
                    self._answer(_Http1(peer, request), request)
        except (_GoneError, OSError):
            pass
        finally:
            with contextlib.suppress(OSError):
                accepted.shutdown(socket.SHUT_RDWR)
            accepted.close()

    def _answer(self, exchange: _Exchange, request: Seen) -> None:
        """Note the request and answer it; `_GoneError` means that the connection is to be closed."""
        answer = self.script(request) if callable(self.script) else self.script
        with self._changed:
            self.requests.append(request)
            self._changed.notify_all()
        try:
            self._give(exchange, answer)
        except (_GoneError, OSError):
            if isinstance(answer, Stream | Hang) and not self._closing.is_set():
                with self._changed:
                    self._hangups += 1
                    self._changed.notify_all()
            raise

    def _give(self, exchange: _Exchange, answer: Answer) -> None:
        match answer:
            case Reply():
                exchange.whole(answer)
            case Stream():
                exchange.head(answer.status, answer.headers)
                for position, chunk in enumerate(answer.chunks):
                    if answer.gated and position:
                        self._wait(exchange, self._gate)
                    exchange.chunk(chunk)
                exchange.end(answer.trailers)
            case Hang():
                self._wait(exchange, threading.Semaphore(0))
            case Bytes():
                exchange.bytes(answer.data)
                raise _GoneError
            case Close():
                raise _GoneError
            case _:
                assert_never(answer)

    def _wait(self, exchange: _Exchange, gate: threading.Semaphore) -> None:
        while not gate.acquire(timeout=_POLL_S):
            if self._closing.is_set() or exchange.gone():
                raise _GoneError


class _Exchange(Protocol):
    """Writer of one response, for any HTTP version."""

    def whole(self, reply: Reply) -> None: ...
    def head(self, status: int, headers: Sequence[Header]) -> None: ...
    def chunk(self, data: bytes) -> None: ...
    def end(self, trailers: Sequence[Header] = ()) -> None: ...
    def bytes(self, data: bytes) -> None: ...
    def gone(self) -> bool: ...


class _Peer:
    """A socket with a read buffer; every received byte is recorded."""

    def __init__(self, sock: socket.socket, record: Connection) -> None:
        self._sock = sock
        self._record = record
        self._buffer = b""
        self.send = sock.sendall

    def receive(self) -> bytes:
        data = self._sock.recv(65536)
        if not data:
            raise _GoneError
        self._record.raw += data
        return data

    def until(self, marker: bytes) -> bytes:
        while (end := self._buffer.find(marker)) < 0:
            self._buffer += self.receive()
        return self._take(end + len(marker))

    def exactly(self, length: int) -> bytes:
        while len(self._buffer) < length:
            self._buffer += self.receive()
        return self._take(length)

    def gone(self) -> bool:
        """Return True if the peer has hung up; data that it sent before is kept."""
        self._sock.settimeout(0)
        try:
            self._buffer += self.receive()
        except (BlockingIOError, ssl.SSLWantReadError):
            return False
        except (_GoneError, OSError):
            return True
        finally:
            self._sock.settimeout(_IDLE_S)
        return False

    def _take(self, length: int) -> bytes:
        taken, self._buffer = self._buffer[:length], self._buffer[length:]
        return taken


def _read_request(peer: _Peer, index: int) -> Seen:
    start, *fields = peer.until(b"\r\n\r\n").decode("latin-1").split("\r\n")[:-2]
    method, target, _ = start.split(" ", 2)
    pairs = (line.partition(":") for line in fields)
    head = Seen(method, target, tuple((name, value.strip()) for name, _, value in pairs), b"", index)
    if head.header("expect") == "100-continue":
        peer.send(b"HTTP/1.1 100 Continue\r\n\r\n")
    if head.header("transfer-encoding"):
        body = b"".join(iter(lambda: _read_chunk(peer), b""))
    else:
        body = peer.exactly(int(head.header("content-length") or 0))
    return Seen(method, target, head.headers, body, index)


def _read_chunk(peer: _Peer) -> bytes:
    """The next chunk of a body, empty for the last one (trailers are not expected)."""
    size = int(peer.until(b"\r\n").partition(b";")[0], 16)
    return peer.exactly(size + 2)[:-2]


class _Http1:
    def __init__(self, peer: _Peer, request: Seen) -> None:
        self._peer = peer
        self._request = request
        self.bytes = peer.send
        self.gone = peer.gone

    def whole(self, reply: Reply) -> None:
        headers = list(reply.headers)
        if not any(name.lower() == "content-length" for name, _ in headers):
            headers.append(("Content-Length", str(len(reply.body))))
        body = b"" if self._request.method == "HEAD" else reply.body
        self._peer.send(_http1_head(reply.status, headers) + body)

    def head(self, status: int, headers: Sequence[Header]) -> None:
        self._peer.send(_http1_head(status, [*headers, ("Transfer-Encoding", "chunked")]))

    def chunk(self, data: bytes) -> None:
        self._peer.send(b"%x\r\n%b\r\n" % (len(data), data))

    def end(self, trailers: Sequence[Header] = ()) -> None:
        lines = "".join(f"{name}: {value}\r\n" for name, value in trailers)
        self._peer.send(b"0\r\n" + lines.encode("latin-1") + b"\r\n")


def _http1_head(status: int, headers: Sequence[Header]) -> bytes:
    # 529 is Anthropic's own.
    phrase = responses.get(status, "Overloaded")
    lines = [
        f"HTTP/1.1 {status} {phrase}",
        *(f"{name}: {value}" for name, value in headers),
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


class _Http2:
    """An HTTP/2 connection: one thread reads, one for each request answers."""

    def __init__(self, peer: _Peer, index: int, answer: Callable[[_Exchange, Seen], None]) -> None:
        self._peer = peer
        self._index = index
        self._answer = answer
        self._heads: dict[int, tuple[Header, ...]] = {}
        self._bodies: dict[int, bytes] = {}
        self.protocol = H2Connection(H2Configuration(client_side=False, header_encoding="latin-1"))
        self.window_opened = threading.Condition()  # also the lock of `protocol`
        self.reset: set[int] = set()
        self.closed = False

    def serve(self) -> None:
        try:
            with self.window_opened:
                self.protocol.initiate_connection()
                self.flush()
            while True:
                data = self._peer.receive()
                with self.window_opened:
                    for happened in self.protocol.receive_data(data):
                        self._take(happened)
                    self.flush()
                    self.window_opened.notify_all()
        finally:
            with self.window_opened:
                self.closed = True
                self.window_opened.notify_all()

    def flush(self) -> None:
        self._peer.send(self.protocol.data_to_send())

    def _take(self, happened: object) -> None:
        match happened:
            case RequestReceived(stream_id=int(stream), headers=headers):
                self._heads[stream] = tuple((str(name), str(value)) for name, value in headers or ())
                self._bodies[stream] = b""
            case TrailersReceived(stream_id=int(stream), headers=headers):
                self._heads[stream] += tuple((str(name), str(value)) for name, value in headers or ())
            case DataReceived(stream_id=int(stream), data=bytes(data), flow_controlled_length=int(length)):
                self._bodies[stream] += data
                self.protocol.acknowledge_received_data(length, stream)
            case StreamEnded(stream_id=int(stream)):
                threading.Thread(target=self._serve_stream, args=(stream,), daemon=True).start()
            case StreamReset(stream_id=int(stream)):
                self.reset.add(stream)
            case ConnectionTerminated():
                self.closed = True
            case WindowUpdated():
                pass

    def _serve_stream(self, stream: int) -> None:
        headers = self._heads[stream]
        pseudo = dict(headers)
        request = Seen(pseudo[":method"], pseudo[":path"], headers, self._bodies[stream], self._index)
        try:
            self._answer(_Http2Stream(self, stream), request)
        except (_GoneError, OSError):
            with self.window_opened, contextlib.suppress(Exception):
                self.protocol.reset_stream(stream)
                self.flush()


class _Http2Stream:
    def __init__(self, connection: _Http2, stream: int) -> None:
        self._connection = connection
        self._stream = stream

    def whole(self, reply: Reply) -> None:
        self.head(reply.status, [*reply.headers, ("content-length", str(len(reply.body)))])
        self.chunk(reply.body)
        self.end()

    def head(self, status: int, headers: Sequence[Header]) -> None:
        with self._connection.window_opened:
            lowered = [(name.lower(), value) for name, value in headers]
            self._connection.protocol.send_headers(self._stream, [(":status", str(status)), *lowered])
            self._connection.flush()

    def chunk(self, data: bytes) -> None:
        protocol, lock = self._connection.protocol, self._connection.window_opened
        deadline = time.monotonic() + WAIT_S
        while data:
            with lock:
                if self.gone() or time.monotonic() > deadline:
                    raise _GoneError
                window = protocol.local_flow_control_window(self._stream)
                size = min(window, protocol.max_outbound_frame_size, len(data))
                if size > 0:
                    protocol.send_data(self._stream, data[:size])
                    self._connection.flush()
                    data = data[size:]
                else:
                    lock.wait(_POLL_S)

    def end(self, trailers: Sequence[Header] = ()) -> None:
        with self._connection.window_opened:
            if self.gone():
                return
            if trailers:
                self._connection.protocol.send_headers(self._stream, trailers, end_stream=True)
            else:
                self._connection.protocol.end_stream(self._stream)
            self._connection.flush()

    def bytes(self, data: bytes) -> None:
        raise NotImplementedError("raw bytes are for HTTP/1")

    def gone(self) -> bool:
        return self._connection.closed or self._stream in self._connection.reset
