"""The listener of a user's own mitmdump: announced once, bound to this machine, never closed again."""

import signal
import socket
import ssl
import sys
import threading
from contextlib import ExitStack

import pytest

from support.fixture_types import StartMitmdump
from support.process_figures import listening_addresses
from support.program import unused_port
from support.waiting import wait_until

pytestmark = pytest.mark.e2e

RULES = "rules: [{name: r, match: {host: api.anthropic.com}, auth: {scheme: keep}}]"
TRACE = b"TRACE / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


class Clients(threading.Thread):
    """Connect in a tight loop, and note what happens after the first success."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.served, self.failures = 0, list[str]()
        self._port, self._ends = port, threading.Event()

    def run(self) -> None:
        while not self._ends.is_set():
            try:
                with socket.create_connection(("127.0.0.1", self._port), 20) as client:
                    client.sendall(TRACE)
                    answer = client.recv(4096)
            except OSError as fault:
                if self.served:
                    self.failures.append(repr(fault))
                continue
            if answer.startswith(b"HTTP/1.1 "):
                self.served += 1
            else:
                self.failures.append(repr(answer))

    def end(self) -> None:
        self._ends.set()
        self.join(20)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere the port is closed for a moment")
@pytest.mark.parametrize("mode", ["regular", "reverse:https://api.anthropic.com"])
def test_no_connection_is_refused_after_the_first_success(mitmdump: StartMitmdump, mode: str) -> None:
    port = unused_port()
    clients = [Clients(port) for _ in range(2)]
    for each in clients:
        each.start()
    lazy = ("--set", "connection_strategy=lazy")
    proxy = mitmdump("-p", str(port), *lazy, rules=RULES, modes=[mode], listen_host=None, wait=False)
    proxy.wait_for_output("rules? in force")
    wait_until(lambda: listening_addresses(port) == {"127.0.0.1"}, proxy.output)
    seen = [each.served for each in clients]
    wait_until(
        lambda: all(each.served >= count + 20 for each, count in zip(clients, seen, strict=True)),
        lambda: [each.failures for each in clients],
    )
    for each in clients:
        each.end()
    assert [each.failures for each in clients] == [[], []]
    assert proxy.output().count("listening at") == 1
    assert "stopped" not in proxy.output()


@pytest.mark.parametrize("listen_host", ["127.0.0.1", None])
def test_hundreds_of_clients_can_wait_to_be_accepted(
    mitmdump: StartMitmdump, listen_host: str | None
) -> None:
    proxy = mitmdump(rules=RULES, listen_host=listen_host)
    wait_until(lambda: listening_addresses(proxy.port) == {"127.0.0.1"}, proxy.output)
    with ExitStack() as opened:
        proxy.process.send_signal(signal.SIGSTOP)
        opened.callback(proxy.process.send_signal, signal.SIGCONT)
        for _ in range(300):
            opened.enter_context(socket.create_connection(("127.0.0.1", proxy.port), 10))


def test_a_client_that_asks_a_reverse_listener_for_https_is_logged_once_with_the_remedy(
    mitmdump: StartMitmdump,
) -> None:
    lazy = ("--set", "connection_strategy=lazy")
    proxy = mitmdump(*lazy, rules=RULES, modes=["reverse:https://api.anthropic.com"])
    for _ in range(2):
        with (
            socket.create_connection(("127.0.0.1", proxy.port)) as client,
            pytest.raises(ssl.SSLCertVerificationError),
        ):
            ssl.create_default_context().wrap_socket(client, server_hostname="localhost")
    remedy = f"write http://127.0.0.1:{proxy.port} or ws://127.0.0.1:{proxy.port} in the client"
    proxy.wait_for_output(remedy)
    proxy.wait_for_output("(?s)handshake failed.*handshake failed")
    assert proxy.output().count(remedy) == 1
