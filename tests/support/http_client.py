"""Clients that show every byte: a raw socket, plain or TLS through CONNECT, and HTTP/2 on top of it."""

import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, ResponseReceived, StreamEnded, StreamReset

from support.answers import Header
from support.http1_reader import Incoming

TIMEOUT_S = 20.0


@dataclass(frozen=True, slots=True)
class Response:
    """A response as received, its body without framing."""

    status: int
    headers: tuple[Header, ...]
    body: bytes = b""

    def header(self, name: str) -> str | None:
        """The first value of a header."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)


class Wire(Incoming):
    """A client's connection: `Wire(port)` in clear, `Wire.through(...)` for TLS inside a CONNECT tunnel."""

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self._sock: socket.socket = socket.create_connection((host, port), TIMEOUT_S)
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    @classmethod
    def through(
        cls,
        proxy_port: int,
        target: str,
        ca: Path,
        *,
        sni: str | None = None,
        alpn: Sequence[str] = ("http/1.1",),
        headers: Sequence[Header] = (),
    ) -> Self:
        """A tunnel to `target` ("host:port") with TLS in it; `sni` is the target's host unless given."""
        wire = cls(proxy_port)
        host = target.rpartition(":")[0]
        response = wire.connect(target, headers)
        if response.status != 200:
            wire.close()
            raise ConnectionError(f"CONNECT {target}: {response.status} {response.body.decode()}")
        wire.start_tls(sni or host, ca, alpn)
        return wire

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def connect(self, target: str, headers: Sequence[Header] = ()) -> Response:
        """Ask for a tunnel and return the proxy's answer."""
        return self.request("CONNECT", target, [("Host", target), *headers])

    def start_tls(self, sni: str | None, ca: Path, alpn: Sequence[str] = ("http/1.1",)) -> None:
        """Start TLS; `sni=None` sends no server name. The certificate must come from `ca`; its name is free."""
        context = ssl.create_default_context(cafile=ca)
        context.check_hostname = False  # tests send names that do not fit on purpose
        if alpn:
            context.set_alpn_protocols(list(alpn))
        self._sock = context.wrap_socket(self._sock, server_hostname=sni)

    @property
    def alpn(self) -> str | None:
        """The protocol that TLS agreed on."""
        return self._sock.selected_alpn_protocol() if isinstance(self._sock, ssl.SSLSocket) else None

    @property
    def certificate(self) -> bytes | None:
        """The peer's certificate as DER."""
        return self._sock.getpeercert(binary_form=True) if isinstance(self._sock, ssl.SSLSocket) else None

    def send(self, data: bytes) -> None:
        self._sock.sendall(data)

    def send_request(
        self, method: str, target: str, headers: Sequence[Header] = (), body: bytes = b""
    ) -> None:
        """Send an HTTP/1.1 request byte for byte; Content-Length is added for a body that has no framing."""
        lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers)]
        framed = {"content-length", "transfer-encoding"} & {name.lower() for name, _ in headers}
        if body and not framed:
            lines.append(f"Content-Length: {len(body)}")
        self.send("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body)

    def request(
        self, method: str, target: str, headers: Sequence[Header] = (), body: bytes = b""
    ) -> Response:
        """Send a request and read the whole response."""
        self.send_request(method, target, headers, body)
        return self.read_response(method)

    def receive(self, timeout: float = TIMEOUT_S) -> bytes:
        """Return the next bytes, empty at the end; `TimeoutError` if nothing arrives."""
        self._sock.settimeout(timeout)
        return self._sock.recv(65536)

    def read_head(self) -> tuple[int, tuple[Header, ...]]:
        """Status and headers of the next response."""
        start, headers = self.read_message_head()
        return int(start.split(" ", 2)[1]), headers

    def read_response(self, method: str = "GET") -> Response:
        """The next whole response; a body without length ends with the connection."""
        response = Response(*self.read_head())
        if (
            method == "HEAD"
            or response.status in (204, 304)
            or (method == "CONNECT" and response.status == 200)
        ):
            return response
        if (response.header("transfer-encoding") or "").lower() == "chunked":
            body = self.read_chunks()
        elif (length := response.header("content-length")) is not None:
            body = self.read_exactly(int(length))
        else:
            body = self.read_rest()
        return replace(response, body=body)

    def close(self) -> None:
        self._sock.close()


def pseudo_headers(
    authority: str, path: str = "/v1/messages", method: str = "POST", scheme: str = "https"
) -> list[Header]:
    """Return the fields of HTTP/2 that stand for a request line and Host."""
    return [(":method", method), (":scheme", scheme), (":authority", authority), (":path", path)]


class Http2Client:
    """HTTP/2 over a `Wire` without TLS or with `alpn=("h2",)`; `headers` need the four pseudo headers."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._protocol: Any = H2Connection(
            H2Configuration(
                header_encoding="latin-1",
                # Any headers are sent, also those that no honest client would send.
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
            )
        )
        self._heads: dict[int, tuple[Header, ...]] = {}
        self._chunks: dict[int, list[bytes]] = {}
        self._ended: set[int] = set()
        self._reset: dict[int, int] = {}
        self._protocol.initiate_connection()
        self._flush()

    def send_request(
        self, headers: Sequence[Header], body: bytes = b"", trailers: Sequence[Header] = ()
    ) -> int:
        """Start a request and give its stream id."""
        stream = int(self._protocol.get_next_available_stream_id())
        self._chunks[stream] = []
        self._protocol.send_headers(stream, list(headers), end_stream=not body and not trailers)
        self._flush()
        while body:
            size = min(
                len(body),
                self._protocol.local_flow_control_window(stream),
                self._protocol.max_outbound_frame_size,
            )
            if size > 0:
                self._protocol.send_data(stream, body[:size], end_stream=size == len(body) and not trailers)
                self._flush()
                body = body[size:]
            else:
                self._pump()
        if trailers:
            self._protocol.send_headers(stream, list(trailers), end_stream=True)
            self._flush()
        return stream

    def open_request(self, headers: Sequence[Header]) -> int:
        """Send the head of a request and give its stream id."""
        stream = int(self._protocol.get_next_available_stream_id())
        self._chunks[stream] = []
        self._protocol.send_headers(stream, list(headers))
        self._flush()
        return stream

    def send_data(self, stream: int, data: bytes) -> None:
        """Send a frame of a request that was opened."""
        self._protocol.send_data(stream, data)
        self._flush()

    def end_request(self, stream: int, trailers: Sequence[Header]) -> None:
        """End a request that was opened."""
        self._protocol.send_headers(stream, list(trailers), end_stream=True)
        self._flush()

    def read_chunk(self, stream: int, number: int) -> bytes:
        """The `number`-th data frame of a response, counted from 0."""
        while len(self._chunks[stream]) <= number:
            self._check(stream)
            self._pump()
        return self._chunks[stream][number]

    def read_response(self, stream: int) -> Response:
        """The whole response of a stream; `ConnectionError` if it was reset."""
        while stream not in self._ended:
            self._check(stream)
            self._pump()
        headers = self._heads[stream]
        return Response(int(dict(headers)[":status"]), headers, b"".join(self._chunks[stream]))

    def request(self, headers: Sequence[Header], body: bytes = b"") -> Response:
        """Send a request and read the whole response."""
        return self.read_response(self.send_request(headers, body))

    def reset(self, stream: int) -> None:
        """Reset a stream, as a client does that lost interest."""
        self._protocol.reset_stream(stream, error_code=8)
        self._flush()

    def _check(self, stream: int) -> None:
        if stream in self._reset:
            raise ConnectionError(f"stream {stream} was reset with error {self._reset[stream]}")

    def _flush(self) -> None:
        self._wire.send(self._protocol.data_to_send())

    def _pump(self) -> None:
        data = self._wire.receive()
        if not data:
            raise ConnectionError("the HTTP/2 connection was closed")
        for happened in self._protocol.receive_data(data):
            match happened:
                case ResponseReceived(stream_id=int(stream), headers=headers):
                    self._heads[stream] = tuple((str(name), str(value)) for name, value in headers or ())
                case DataReceived(
                    stream_id=int(stream), data=bytes(body), flow_controlled_length=int(length)
                ):
                    self._chunks[stream].append(body)
                    self._protocol.acknowledge_received_data(length, stream)
                case StreamEnded(stream_id=int(stream)):
                    self._ended.add(stream)
                case StreamReset(stream_id=int(stream), error_code=code):
                    self._reset[stream] = int(code or 0)
        self._flush()
