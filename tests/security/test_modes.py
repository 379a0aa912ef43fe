"""With `gateway_clients` nothing is relayed for a client without a key: in any mode, over any protocol."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from support.fixture_types import StartMitmdump
from support.mitmdump import Mitmdump
from support.table import table
from support.waiting import wait_until

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


@pytest.fixture(scope="module")
def one_echo() -> Iterator[Echo]:
    made = Echo()
    yield made
    made.close()


@pytest.fixture
def echo(one_echo: Echo) -> Echo:
    one_echo.received = b""
    return one_echo


MODES = (
    "regular", "socks5", "reverse:tcp://{}", "reverse:tls://{}", "dns", "reverse:dns://{}",
    "reverse:udp://{}",
)  # fmt: skip


@dataclass
class Listeners:
    """mitmdump with one client key, and the port of each mode."""

    proxy: Mitmdump
    clients: tuple[str, str]

    def __getitem__(self, mode: str) -> int:
        return self.proxy.ports[MODES.index(mode)]


@pytest.fixture(scope="module")
def listeners(one_echo: Echo, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Listeners]:
    folder = tmp_path_factory.mktemp("modes")
    file = folder / "clients.txt"
    file.write_text(KEY + "\n")
    file.chmod(0o600)
    clients = ("--set", f"gateway_clients={file}")
    modes = [mode.format(f"127.0.0.1:{one_echo.port}") for mode in MODES]
    proxy = Mitmdump(folder, *clients, rules=RULES, modes=modes)
    yield Listeners(proxy, clients)
    proxy.kill()


def all_of(client: socket.socket) -> bytes:
    """Return everything until the other side closes."""
    with contextlib.suppress(ConnectionError):
        return b"".join(iter(lambda: client.recv(4096), b""))
    return b""


def socks5(listener: int, port: int) -> socket.socket:
    """Open a SOCKS5 connection to a port of this machine."""
    client = socket.create_connection(("127.0.0.1", listener), 20)
    client.sendall(b"\x05\x01\x00")
    assert client.recv(2) == b"\x05\x00"
    client.sendall(b"\x05\x01\x00\x01\x7f\x00\x00\x01" + port.to_bytes(2, "big"))
    client.recv(10)
    return client


def test_without_client_keys_raw_tcp_over_socks5_is_relayed(mitmdump: StartMitmdump, echo: Echo) -> None:
    proxy = mitmdump(rules=RULES, modes=["socks5"])
    with socks5(proxy.port, echo.port) as client:
        client.sendall(HELLO)
        assert client.recv(4096) == HELLO


def assert_not_relayed(listener: int, echo: Echo) -> None:
    """Assert that raw TCP over SOCKS5 does not reach the service."""
    with socks5(listener, echo.port) as client, contextlib.suppress(ConnectionError):
        client.sendall(HELLO)
        assert HELLO not in all_of(client)
    assert echo.received == b""


def test_raw_tcp_over_socks5_is_not_relayed(listeners: Listeners, echo: Echo) -> None:
    assert_not_relayed(listeners["socks5"], echo)


@pytest.mark.parametrize(
    "option", ["ignore_hosts=127.0.0.1", "tcp_hosts=127.0.0.1", "connection_strategy=eager"]
)
def test_no_option_opens_a_way_around_the_key(
    mitmdump: StartMitmdump, listeners: Listeners, echo: Echo, option: str
) -> None:
    proxy = mitmdump(*listeners.clients, "--set", option, rules=RULES, modes=["socks5"])
    assert_not_relayed(proxy.port, echo)


def test_http_over_socks5_is_served_with_a_key_only(listeners: Listeners, echo: Echo) -> None:
    request = b"GET / HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nConnection: close\r\n" % echo.port
    with socks5(listeners["socks5"], echo.port) as client:
        client.sendall(request + b"\r\n")
        assert all_of(client).startswith(b"HTTP/1.1 401 ")
    assert echo.received == b""
    with socks5(listeners["socks5"], echo.port) as client:
        client.sendall(request + b"X-Api-Key: " + KEY.encode() + b"\r\n\r\n")
        client.recv(10)
    assert echo.received.startswith(b"GET / ")
    assert KEY.encode() not in echo.received


def test_raw_tcp_inside_connect_needs_the_key_of_the_tunnel(listeners: Listeners, echo: Echo) -> None:
    target = f"127.0.0.1:{echo.port}"
    for key, wanted in (("", b"401"), (f"Proxy-Authorization: Bearer {KEY}\r\n", b"200")):
        with socket.create_connection(("127.0.0.1", listeners["regular"]), 20) as client:
            client.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{key}\r\n".encode())
            assert client.recv(4096).split(b" ")[1] == wanted
            assert echo.received == b""
            if key:
                client.sendall(HELLO)
                assert client.recv(4096) == HELLO


@table("mode", ["reverse:tcp://{}", "reverse:tls://{}"])
def test_a_raw_reverse_listener_relays_nothing(listeners: Listeners, echo: Echo, mode: str) -> None:
    with (
        socket.create_connection(("127.0.0.1", listeners[mode]), 20) as client,
        contextlib.suppress(ConnectionError),
    ):
        client.sendall(HELLO)
        assert all_of(client) == b""
    assert echo.received == b""


# A query for the address of "localhost".
QUERY = b"\0\7\1\0\0\1\0\0\0\0\0\0\x09localhost\0\0\1\0\1"
REFUSED = "a client key is needed, and this protocol cannot carry one"


@table("mode", ["dns", "reverse:dns://{}", "reverse:udp://{}"])
def test_a_datagram_is_neither_answered_nor_relayed(listeners: Listeners, echo: Echo, mode: str) -> None:
    told = listeners.proxy.output().count(REFUSED)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.sendto(QUERY, ("127.0.0.1", listeners[mode]))
        wait_until(lambda: listeners.proxy.output().count(REFUSED) > told, listeners.proxy.output)
        client.setblocking(False)
        with pytest.raises(BlockingIOError):
            client.recv(4096)
    assert echo.received == b""
