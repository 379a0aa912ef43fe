"""HTTP/1.1 and HTTP/2 on the server side of a socket: requests in, scripted responses out."""

import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from http.client import responses

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    RequestReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)

from support.answers import Header, Reply, Seen
from support.http1_reader import EndError, Incoming

WAIT_S = 20.0  # far more than anything here takes; a wait that runs out is a failure
IDLE_S = 120.0
POLL_S = 0.02


@dataclass(slots=True)
class Connection:
    """An accepted connection: received bytes (after TLS) and the client's TLS name and protocol."""

    raw: bytearray = field(default_factory=bytearray)
    sni: str | None = None
    alpn: str | None = None


class Peer(Incoming):
    """A client's socket; every received byte is recorded."""

    def __init__(self, sock: socket.socket, record: Connection) -> None:
        self._sock = sock
        self._record = record
        self.send = sock.sendall

    def receive(self) -> bytes:
        data = self._sock.recv(65536)
        self._record.raw += data
        return data

    def gone(self) -> bool:
        """Return True if the peer has hung up; data that it sent before is kept."""
        self._sock.settimeout(0)
        try:
            self._receive_more()
        except (BlockingIOError, ssl.SSLWantReadError):
            return False
        except OSError:
            return True
        finally:
            self._sock.settimeout(IDLE_S)
        return False


def read_request(peer: Peer, index: int) -> Seen:
    start, headers = peer.read_message_head()
    method, target, _ = start.split(" ", 2)
    head = Seen(method, target, headers, b"", index)
    if head.header("expect") == "100-continue":
        peer.send(b"HTTP/1.1 100 Continue\r\n\r\n")
    if head.header("transfer-encoding"):
        return replace(head, body=peer.read_chunks())
    return replace(head, body=peer.read_exactly(int(head.header("content-length") or 0)))


class Http1:
    def __init__(self, peer: Peer, request: Seen) -> None:
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
    lines = [f"HTTP/1.1 {status} {phrase}", *(f"{name}: {value}" for name, value in headers)]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


class Http2:
    """An HTTP/2 connection: one thread reads, one for each request answers."""

    def __init__(self, peer: Peer, index: int, answer: Callable[["Http2Stream", Seen], None]) -> None:
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
            while data := self._peer.receive():
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

    def _serve_stream(self, stream: int) -> None:
        headers = self._heads[stream]
        pseudo = dict(headers)
        request = Seen(pseudo[":method"], pseudo[":path"], headers, self._bodies[stream], self._index)
        try:
            self._answer(Http2Stream(self, stream), request)
        except OSError:
            with self.window_opened, contextlib.suppress(Exception):
                self.protocol.reset_stream(stream)
                self.flush()


class Http2Stream:
    def __init__(self, connection: Http2, stream: int) -> None:
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
                    raise EndError
                window = protocol.local_flow_control_window(self._stream)
                size = min(window, protocol.max_outbound_frame_size, len(data))
                if size > 0:
                    protocol.send_data(self._stream, data[:size])
                    self._connection.flush()
                    data = data[size:]
                else:
                    lock.wait(POLL_S)

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


Responder = Http1 | Http2Stream
