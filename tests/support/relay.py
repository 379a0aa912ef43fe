"""A forwarding proxy, like a company's, that records the requested tunnels."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Self


class Relay:
    """Answers CONNECT; `table` maps "host:port" to loopback ports."""

    def __init__(self) -> None:
        self.targets: list[str] = []
        self.table: dict[str, int] = {}
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head:
                if not (data := client.recv(4096)):
                    return
                head += data
            target = head.split(b" ", 2)[1].decode()
            self.targets.append(target)
            with socket.create_connection(("127.0.0.1", self.table[target])) as upstream:
                client.sendall(b"HTTP/1.1 200 Connected\r\n\r\n")
                threading.Thread(target=_pump, args=(upstream, client), daemon=True).start()
                _pump(client, upstream)


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
