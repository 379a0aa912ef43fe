"""HTTP/3 over real QUIC on loopback: a client that sends any head, and an upstream that keeps what it receives."""

import asyncio
import random
import ssl
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.asyncio.server import serve
from aioquic.h3.connection import H3_ALPN, FrameType, H3Connection, encode_frame
from aioquic.h3.events import DataReceived, H3Event, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated, ProtocolNegotiated, QuicEvent, StreamReset
from hpack.hpack import encode_integer

from support.answers import Header

TIMEOUT_S = 20.0
# No port is used twice: for a while, mitmproxy takes packets from the address of an ended connection to belong to that
# connection, and drops them.
_PORTS = iter(random.sample(range(10_000, 32_000), 1000))
Fields = Sequence[tuple[bytes, bytes]]


class _Peer(QuicConnectionProtocol):
    """One end of an HTTP/3 connection."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.http: H3Connection | None = None
        self.negotiated = asyncio.Event()

    def quic_event_received(self, event: QuicEvent) -> None:
        if isinstance(event, ProtocolNegotiated):
            self.http = H3Connection(self._quic)
            self.negotiated.set()
        for happened in self.http.handle_event(event) if self.http else ():
            self.take(happened)

    def take(self, event: H3Event) -> None:
        """Take an event of HTTP/3."""


class _Client(_Peer):
    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.status, self.body = 0, b""
        self.ended = asyncio.Event()

    def quic_event_received(self, event: QuicEvent) -> None:
        super().quic_event_received(event)
        if isinstance(event, StreamReset | ConnectionTerminated):
            self.ended.set()

    def take(self, event: H3Event) -> None:
        if isinstance(event, HeadersReceived):
            self.status = int(dict(event.headers)[b":status"])
        elif isinstance(event, DataReceived):
            self.body += event.data
        if getattr(event, "stream_ended", False):
            self.ended.set()

    async def ask(self, parts: Sequence[Sequence[Header] | bytes]) -> tuple[int, bytes]:
        """Send header sections and data frames on one stream, unchecked; return status and body."""
        await self.negotiated.wait()
        stream = self._quic.get_next_available_stream_id()
        for number, part in enumerate(parts, 1):
            self._quic.send_stream_data(stream, _frame(part), number == len(parts))
        self.transmit()
        await self.ended.wait()
        return self.status, self.body


def _frame(part: Sequence[Header] | bytes) -> bytes:
    if isinstance(part, bytes):
        return encode_frame(FrameType.DATA, part)
    # QPACK with literals only (RFC 9204, 4.5.6): aioquic's encoder refuses large heads.
    section = b"".join(_literal(name, 3, 0x20) + _literal(value, 7) for name, value in part)
    return encode_frame(FrameType.HEADERS, b"\0\0" + section)


def _literal(text: str, prefix_bits: int, flags: int = 0) -> bytes:
    data = text.encode("latin-1")
    length = encode_integer(len(data), prefix_bits)
    length[0] |= flags
    return bytes(length) + data


def ask(port: int, *parts: Sequence[Header] | bytes, sni: str = "localhost") -> tuple[int, bytes]:
    """Send one request; return status and body, or status 0 if the gateway ended the stream or the connection."""

    async def run() -> tuple[int, bytes]:
        settings = QuicConfiguration(
            is_client=True, alpn_protocols=H3_ALPN, verify_mode=ssl.CERT_NONE, server_name=sni
        )
        async with (
            asyncio.timeout(TIMEOUT_S),
            connect(
                "127.0.0.1", port, configuration=settings, create_protocol=_Client, local_port=next(_PORTS)
            ) as client,
        ):
            assert isinstance(client, _Client)
            answer = await client.ask(parts)
            client._closed.set()  # or the end waits for late packets, which takes half a second
            return answer

    return asyncio.run(run())


class Http3Upstream:
    """An upstream that answers 200 to everything, in its own thread; `certificate` has the key too."""

    def __init__(self, certificate: Path) -> None:
        self.heads: list[Fields] = []
        self._loop = asyncio.new_event_loop()
        self._settings = QuicConfiguration(is_client=False, alpn_protocols=H3_ALPN)
        self._settings.load_cert_chain(certificate, certificate)
        self._server = self._loop.run_until_complete(
            serve("127.0.0.1", 0, configuration=self._settings, create_protocol=self._accept)
        )
        assert self._server._transport is not None
        self.port: int = self._server._transport.get_extra_info("sockname")[1]
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._server.close)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _accept(self, *args: Any, **options: Any) -> QuicConnectionProtocol:
        upstream = self

        class Connection(_Peer):
            def take(self, event: H3Event) -> None:
                if isinstance(event, HeadersReceived):
                    upstream.heads.append(event.headers)
                if getattr(event, "stream_ended", False):
                    assert isinstance(event, HeadersReceived | DataReceived)
                    assert self.http is not None
                    self.http.send_headers(event.stream_id, [(b":status", b"200")])
                    self.http.send_data(event.stream_id, b'{"model":"gw-model"}', end_stream=True)
                    self.transmit()

        return Connection(*args, **options)
