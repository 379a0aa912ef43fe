"""The page for Prometheus needs one thread, and waits for no client for long."""

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry, Counter

from mitm_gateway.observe.metrics_page import MAX_CONNECTIONS, MetricsPage


@pytest.fixture
def page() -> Iterator[MetricsPage]:
    """A page with one counter."""
    registry = CollectorRegistry()
    Counter("requests", "Requests.", registry=registry).inc()
    served = MetricsPage("127.0.0.1", 0, registry)
    yield served
    served.close()


def connect(page: MetricsPage) -> socket.socket:
    return socket.create_connection(("127.0.0.1", page.port), timeout=20)


def ask(page: MetricsPage, head: bytes) -> bytes:
    with connect(page) as client:
        client.sendall(head)
        return b"".join(iter(lambda: client.recv(65536), b""))


def test_idle_connections_need_no_threads_and_delay_no_scraper(page: MetricsPage) -> None:
    before = threading.active_count()
    idle = [connect(page) for _ in range(MAX_CONNECTIONS - 1)]
    idle[0].sendall(b"GET /metrics HT")
    assert b"requests_total 1.0" in ask(page, b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert threading.active_count() == before
    for each in idle:
        each.close()


def test_connections_beyond_the_bound_are_closed(page: MetricsPage) -> None:
    idle = [connect(page) for _ in range(MAX_CONNECTIONS)]
    answer = b""
    with contextlib.suppress(ConnectionError):
        answer = ask(page, b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert answer == b""
    for each in idle:
        each.close()


@pytest.mark.parametrize(
    "head", [b"POST /metrics HTTP/1.1\r\n\r\n", b"\r\n\r\n", b"OPTIONS * HTTP/1.1\r\n\r\n"]
)
def test_other_methods_are_refused(page: MetricsPage, head: bytes) -> None:
    assert ask(page, head).startswith(b"HTTP/1.1 405 ")


@pytest.mark.parametrize(
    "host", ["attacker.test", "localhost.attacker.test:9464", "10.0.0.1", "", "a b", "\xff"]
)
def test_a_web_page_that_points_its_own_name_here_reads_nothing(page: MetricsPage, host: str) -> None:
    answer = ask(page, f"GET /metrics HTTP/1.1\r\nhOST: {host}\r\n\r\n".encode("latin-1"))
    assert answer.startswith(b"HTTP/1.1 421 ")
    assert b"requests" not in answer


@pytest.mark.parametrize("host", ["Host: 127.0.0.1:9464\r\n", "host:[::1]\r\n", "Host: LOCALHOST.\r\n", ""])
def test_this_machines_names_and_scrapers_without_a_host_are_served(page: MetricsPage, host: str) -> None:
    assert b"requests_total 1.0" in ask(page, f"GET /metrics HTTP/1.1\r\n{host}\r\n".encode())


def test_another_address_is_served_by_any_name() -> None:
    page = MetricsPage("0.0.0.0", 0, CollectorRegistry())
    assert ask(page, b"GET / HTTP/1.1\r\nHost: pod.cluster.test\r\n\r\n").startswith(b"HTTP/1.1 200 ")
    page.close()


def test_a_head_without_end_ends_the_connection(page: MetricsPage) -> None:
    with connect(page) as client, pytest.raises(ConnectionError):
        client.sendall(b"a" * (64 << 20))
