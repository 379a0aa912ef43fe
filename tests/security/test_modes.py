"""With `gateway_clients` nothing is relayed for a client without a key: in any mode, over any protocol."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.processes import Mitmdump
from support.starters import StartMitmdump

pytestmark = pytest.mark.e2e

KEY = "client-key-of-a-colleague-0123456789"
RULES = "unmatched: pass\nrules: [{name: r, match: {host: api.anthropic.com}, auth: {scheme: keep}}]"
HELLO = b"SSH-2.0-client\r\n"


class Echo:
    """A raw TCP and UDP service that returns what it receives, and keeps it."""

    def __init__(self) -> None:
        self.received = b""
        self._tcp = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._tcp.getsockname()[1]
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._udp.bind(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, daemon=True).start()
        threading.Thread(target=self._answer, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._tcp.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            while data := client.recv(4096):
                self.received += data
                client.sendall(data)

    def _answer(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                data, sender = self._udp.recvfrom(4096)
                self.received += data
                self._udp.sendto(data, sender)

    def close(self) -> None:
        self._tcp.close()
        self._udp.close()


@pytest.fixture
def echo() -> Iterator[Echo]:
    made = Echo()
    yield made
    made.close()


@pytest.fixture
def clients(tmp_path: Path) -> tuple[str, str]:
    """The option that names a file with one client key."""
    file = tmp_path / "clients.txt"
    file.write_text(KEY + "\n")
    file.chmod(0o600)
    return "--set", f"gateway_clients={file}"


def all_of(client: socket.socket) -> bytes:
    """Return everything until the other side closes."""
    with contextlib.suppress(ConnectionError):
        return b"".join(iter(lambda: client.recv(4096), b""))
    return b""


def socks5(proxy: Mitmdump, port: int) -> socket.socket:
    """Open a SOCKS5 connection to a port of this machine."""
    client = socket.create_connection(("127.0.0.1", proxy.port), 20)
    client.sendall(b"\x05\x01\x00")
    assert client.recv(2) == b"\x05\x00"
    client.sendall(b"\x05\x01\x00\x01\x7f\x00\x00\x01" + port.to_bytes(2, "big"))
    client.recv(10)
    return client


def test_raw_tcp_over_socks5_is_not_relayed(
    mitmdump: StartMitmdump, clients: tuple[str, str], echo: Echo
) -> None:
    proxy = mitmdump(*clients, rules=RULES, modes=["socks5"])
    with socks5(proxy, echo.port) as client:
        client.sendall(HELLO)
        assert HELLO not in all_of(client)
    assert echo.received == b""


def test_without_client_keys_raw_tcp_over_socks5_is_relayed(mitmdump: StartMitmdump, echo: Echo) -> None:
    proxy = mitmdump(rules=RULES, modes=["socks5"])
    with socks5(proxy, echo.port) as client:
        client.sendall(HELLO)
        assert client.recv(4096) == HELLO


@pytest.mark.parametrize(
    "option", ["ignore_hosts=127.0.0.1", "tcp_hosts=127.0.0.1", "connection_strategy=eager"]
)
def test_no_option_opens_a_way_around_the_key(
    mitmdump: StartMitmdump, clients: tuple[str, str], echo: Echo, option: str
) -> None:
    proxy = mitmdump(*clients, "--set", option, rules=RULES, modes=["socks5"])
    with socks5(proxy, echo.port) as client, contextlib.suppress(ConnectionError):
        client.sendall(HELLO)
        assert HELLO not in all_of(client)
    assert echo.received == b""


def test_http_over_socks5_is_served_with_a_key_only(
    mitmdump: StartMitmdump, clients: tuple[str, str], echo: Echo
) -> None:
    proxy = mitmdump(*clients, rules=RULES, modes=["socks5"])
    request = b"GET / HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nConnection: close\r\n" % echo.port
    with socks5(proxy, echo.port) as client:
        client.sendall(request + b"\r\n")
        assert all_of(client).startswith(b"HTTP/1.1 401 ")
    assert echo.received == b""
    with socks5(proxy, echo.port) as client:
        client.sendall(request + b"X-Api-Key: " + KEY.encode() + b"\r\n\r\n")
        client.recv(10)
    assert echo.received.startswith(b"GET / ")
    assert KEY.encode() not in echo.received


@pytest.mark.parametrize("key", ["", f"Proxy-Authorization: Bearer {KEY}\r\n"], ids=["without", "with a key"])
def test_raw_tcp_inside_connect_needs_the_key_of_the_tunnel(
    mitmdump: StartMitmdump, clients: tuple[str, str], echo: Echo, key: str
) -> None:
    proxy = mitmdump(*clients, rules=RULES, modes=["regular"])
    target = f"127.0.0.1:{echo.port}"
    with socket.create_connection(("127.0.0.1", proxy.port), 20) as client:
        client.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{key}\r\n".encode())
        status = client.recv(4096).split(b" ")[1]
        if key:
            assert status == b"200"
            client.sendall(HELLO)
            assert client.recv(4096) == HELLO
    if not key:
        assert (status, echo.received) == (b"401", b"")


@pytest.mark.parametrize("mode", ["reverse:tcp://{}", "reverse:tls://{}"])
def test_a_raw_reverse_listener_relays_nothing(
    mitmdump: StartMitmdump, clients: tuple[str, str], echo: Echo, mode: str
) -> None:
    proxy = mitmdump(*clients, rules=RULES, modes=[mode.format(f"127.0.0.1:{echo.port}")])
    with (
        socket.create_connection(("127.0.0.1", proxy.port), 20) as client,
        contextlib.suppress(ConnectionError),
    ):
        client.sendall(HELLO)
        assert all_of(client) == b""
    assert echo.received == b""


# A query for the address of "localhost".
QUERY = b"\0\7\1\0\0\1\0\0\0\0\0\0\x09localhost\0\0\1\0\1"


@pytest.mark.parametrize("mode", ["dns", "reverse:dns://{}", "reverse:udp://{}"])
def test_a_datagram_is_neither_answered_nor_relayed(
    mitmdump: StartMitmdump, clients: tuple[str, str], echo: Echo, mode: str
) -> None:
    proxy = mitmdump(*clients, rules=RULES, modes=["regular", mode.format(f"127.0.0.1:{echo.port}")])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.sendto(QUERY, ("127.0.0.1", proxy.ports[1]))
        proxy.wait_for_output("a client key is needed, and this protocol cannot carry one")
        client.setblocking(False)
        with pytest.raises(BlockingIOError):
            client.recv(4096)
    assert echo.received == b""
