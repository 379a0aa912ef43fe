"""The page that Prometheus reads, served by one thread, however many connections are open."""

import asyncio
import re
import socket
import threading
from collections.abc import Callable

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from ..wire.addresses import is_loopback, parse_authority

# A scraper sends its request at once; further connections wait in the system's queue, or are closed.
_PATIENCE_S = 10.0
MAX_CONNECTIONS = 64
_MAX_HEAD_BYTES = 16 << 10
_HOST = re.compile(rb"\nhost:[ \t]*([^\r\n]*)", re.IGNORECASE)


def _names_loopback(head: bytes) -> bool:
    """Return whether a request names this machine: a web page could point its own name here (DNS rebinding)."""
    try:
        hosts = [parse_authority(name.strip().decode()).host for name in _HOST.findall(head)]
    except ValueError:
        return False
    return all(host == "localhost" or is_loopback(host) for host in hosts)


class MetricsPage:
    """Answers each GET with the metrics, and closes the connection. Raises OSError if the address is not available."""

    def __init__(self, host: str, port: int, registry: CollectorRegistry) -> None:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        self._socket = socket.create_server((host, port), family=family)
        self._is_loopback = is_loopback(self._socket.getsockname()[0])
        self.port: int = self._socket.getsockname()[1]
        self._page: Callable[[], bytes] = lambda: generate_latest(registry)
        self._open = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="gateway_metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop serving."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _run(self) -> None:
        with self._socket, asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            start = asyncio.start_server(self._serve, sock=self._socket, limit=_MAX_HEAD_BYTES)
            self._server = runner.run(start)
            self._loop.run_forever()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            if self._open <= MAX_CONNECTIONS:
                async with asyncio.timeout(_PATIENCE_S):
                    head = await reader.readuntil(b"\r\n\r\n")
                    writer.write(self._answer(head))
                    await writer.drain()
        except (OSError, TimeoutError, EOFError, asyncio.LimitOverrunError):
            pass  # the peer left, sends nothing, or sends no request
        finally:
            self._open -= 1
            writer.close()

    def _answer(self, head: bytes) -> bytes:
        status, body = b"200 OK", b""
        if self._is_loopback and not _names_loopback(head):
            status = b"421 Misdirected Request"
        elif not head.startswith(b"GET "):
            status = b"405 Method Not Allowed"
        else:
            body = self._page()
        fields = (
            f"Content-Type: {CONTENT_TYPE_LATEST}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n"
        )
        return b"HTTP/1.1 " + status + b"\r\n" + fields.encode() + b"\r\n" + body
