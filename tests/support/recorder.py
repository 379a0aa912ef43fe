"""An upstream on loopback that records every received byte and responds by a script."""

import contextlib
import socket
import ssl
import threading
from collections.abc import Sequence
from typing import Self, assert_never

from support.answers import Answer, Bytes, Close, Hang, Reply, Script, Seen, Stream, claude_answers
from support.certificates import Authority
from support.http1_reader import EndError
from support.http_server import (
    IDLE_S,
    POLL_S,
    WAIT_S,
    Connection,
    Http1,
    Http2,
    Peer,
    Responder,
    read_request,
)
from support.waiting import wait_until


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
        address: str = "127.0.0.1",
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
        self._listener = socket.create_server((address, 0), backlog=1024)
        self._address = address
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True, name=f"recorder-{self.port}").start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def url(self) -> str:
        """Base URL with the address as a number: `http://127.0.0.1:PORT`, or `https://`."""
        return f"{'http' if self._context is None else 'https'}://{self._address}:{self.port}"

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

    def wait_for_bytes(self, marker: bytes) -> None:
        """Return when these bytes have arrived, HTTP or not."""
        wait_until(lambda: marker in self.raw, lambda: f"no {marker!r}")

    def wait_for_hangup(self) -> None:
        """Return when a client has left in the middle of a `Stream` or a `Hang`."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._hangups, WAIT_S):
                raise TimeoutError("no client hung up")

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
            accepted.settimeout(IDLE_S)
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
            peer = Peer(accepted, connection)
            if connection.alpn == "h2":
                Http2(peer, index, self._answer).serve()
            else:
                while True:
                    request = read_request(peer, index)
                    self._answer(Http1(peer, request), request)
        except OSError:
            pass
        finally:
            with contextlib.suppress(OSError):
                accepted.shutdown(socket.SHUT_RDWR)
            accepted.close()

    def _answer(self, responder: Responder, request: Seen) -> None:
        """Note the request and answer it; an `OSError` means that the connection is to be closed."""
        answer = self.script(request) if callable(self.script) else self.script
        with self._changed:
            self.requests.append(request)
            self._changed.notify_all()
        try:
            self._give(responder, answer)
        except OSError:
            if isinstance(answer, Stream | Hang) and not self._closing.is_set():
                with self._changed:
                    self._hangups += 1
                    self._changed.notify_all()
            raise

    def _give(self, responder: Responder, answer: Answer) -> None:
        match answer:
            case Reply():
                responder.whole(answer)
            case Stream():
                responder.head(answer.status, answer.headers)
                for position, chunk in enumerate(answer.chunks):
                    if answer.gated and position:
                        self._wait(responder, self._gate)
                    responder.chunk(chunk)
                responder.end(answer.trailers)
            case Hang():
                self._wait(responder, threading.Semaphore(0))
            case Bytes():
                responder.bytes(answer.data)
                raise EndError
            case Close():
                raise EndError
            case _:
                assert_never(answer)

    def _wait(self, responder: Responder, gate: threading.Semaphore) -> None:
        while not gate.acquire(timeout=POLL_S):
            if self._closing.is_set() or responder.gone():
                raise EndError
