"""A forwarding proxy, like a company's, that records the requested tunnels and alone knows where names lead."""

import base64
import contextlib
import socket
import ssl
import threading
from typing import Self

from support.certificates import Authority


class Relay:
    """Answers CONNECT, whole URLs of plain http, and SOCKS 5; `table` maps "host:port" to loopback ports.

    `login` is the expected "user:password", and `answer` the reply to everything; an empty one closes.
    """

    def __init__(
        self,
        table: dict[str, int] | None = None,
        *,
        login: str | None = None,
        answer: bytes | None = None,
        tls: Authority | None = None,
    ) -> None:
        self.targets: list[str] = []
        self.heads: list[bytes] = []
        self.table = table or {}
        self.login = login
        self.answer = answer
        self._context = tls.server_context("127.0.0.1", "localhost") if tls else None
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
        with contextlib.suppress(OSError), contextlib.ExitStack() as opened:
            opened.enter_context(client)
            if self._context:
                client = opened.enter_context(self._context.wrap_socket(client, server_side=True))
            first = client.recv(1)
            if first == b"\x16":  # TLS
                client.sendall(b"HTTP/1.1 400 Bad request\r\n\r\n")
                return
            self._serve_socks(client) if first == b"\x05" else self._serve_http(client, first)

    def _serve_http(self, client: socket.socket, head: bytes) -> None:
        while b"\r\n\r\n" not in head:
            if not (data := client.recv(4096)):
                return
            head += data
        self.heads.append(head)
        method, target, _ = head.split(b" ", 2)
        if self.answer is not None:
            client.sendall(self.answer)
        elif self.login and _basic(self.login) not in head:
            client.sendall(
                b'HTTP/1.1 407 Login\r\nProxy-Authenticate: Basic realm="x"\r\nContent-Length: 0\r\n\r\n'
            )
        elif method == b"CONNECT":
            self._relay(client, target.decode(), b"HTTP/1.1 200 Connected\r\n\r\n", b"")
        else:
            place, _, path = target.removeprefix(b"http://").partition(b"/")
            place = place if b":" in place else place + b":80"
            self._relay(client, place.decode(), b"", head.replace(target, b"/" + path, 1))

    def _serve_socks(self, client: socket.socket) -> None:
        methods = client.recv(client.recv(1)[0])
        client.sendall(b"\x05\x02" if b"\x02" in methods else b"\x05\x00")
        if b"\x02" in methods:
            client.recv(1)
            user, password = client.recv(client.recv(1)[0]), client.recv(client.recv(1)[0])
            is_right = f"{user.decode()}:{password.decode()}" == self.login
            client.sendall(b"\x01\x00" if is_right else b"\x01\x01")
        kind = client.recv(4)[3]
        name = socket.inet_ntoa(client.recv(4)) if kind == 1 else client.recv(client.recv(1)[0]).decode()
        place = f"{name}:{int.from_bytes(client.recv(2), 'big')}"
        if place not in self.table:
            client.sendall(b"\x05\x04\x00\x01" + bytes(6))
        else:
            self._relay(client, place, b"\x05\x00\x00\x01" + bytes(6), b"")

    def _relay(self, client: socket.socket, place: str, reply: bytes, first: bytes) -> None:
        self.targets.append(place)
        if place not in self.table:
            client.sendall(b"HTTP/1.1 503 No such host\r\nContent-Length: 0\r\n\r\n")
            return
        with socket.create_connection(("127.0.0.1", self.table[place])) as upstream:
            client.sendall(reply)
            upstream.sendall(first)
            threading.Thread(target=_pump, args=(upstream, client), daemon=True).start()
            _pump(client, upstream)


def _basic(login: str) -> bytes:
    return b"Proxy-Authorization: Basic " + base64.b64encode(login.encode())


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError, ValueError):  # the other direction may have closed it
        while data := source.recv(65536):
            sink.sendall(data)
        if isinstance(sink, ssl.SSLSocket):
            sink.unwrap()
        sink.shutdown(socket.SHUT_WR)
