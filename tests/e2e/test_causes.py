"""The 502 for an upstream that cannot be used names the cause."""

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from mitm_gateway.patches.safety.error_pages import cause_of
from support.certificates import Authority
from support.processes import unused_port
from support.starters import StartMitmdump, StartRecorder
from support.wire import Wire

pytestmark = pytest.mark.e2e

RULES = """
rules: [{name: r, match: {host: api.anthropic.com}, upstream: "%s", auth: {scheme: keep}}]
"""
MODE = "reverse:https://api.anthropic.com"


def reason(mitmdump: StartMitmdump, upstream: str, trust: Path | None = None) -> str:
    proxy = mitmdump(rules=RULES % upstream, modes=[MODE], trust=trust)
    with Wire(proxy.port) as wire:
        answer = wire.request("GET", "/", [("Host", "localhost")])
    assert answer.status == 502
    return answer.body.decode()


@pytest.fixture
def gibberish() -> Iterator[int]:
    """The port of a service that speaks another protocol."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                with client:
                    client.sendall(b"SSH-2.0-OpenSSH_9.9\r\n\r\n")
                    client.recv(4096)

    threading.Thread(target=serve, daemon=True).start()
    yield int(listener.getsockname()[1])
    listener.close()


def test_a_refused_connection(mitmdump: StartMitmdump) -> None:
    assert "the upstream refused the connection" in reason(mitmdump, f"http://127.0.0.1:{unused_port()}")


def test_a_certificate_that_is_not_trusted(
    mitmdump: StartMitmdump, recorder: StartRecorder, authority: Authority
) -> None:
    upstream = recorder(tls=authority, names=["localhost"])
    body = reason(mitmdump, f"https://localhost:{upstream.port}")
    assert "the upstream's certificate is not trusted" in body
    assert "ssl_verify_upstream_trusted_ca=FILE" in body


@pytest.mark.parametrize(
    ("version", "cause"),
    [
        (ssl.TLSVersion.TLSv1_2, "an alert; if it wants a client's certificate, set client_certs=FILE"),
        (ssl.TLSVersion.TLSv1_3, "the upstream closed the connection without an answer"),
    ],
)  # fmt: skip
def test_a_missing_client_certificate(
    mitmdump: StartMitmdump, recorder: StartRecorder, tmp_path: Path, version: ssl.TLSVersion, cause: str
) -> None:
    class Demanding(Authority):
        """An authority whose servers want a certificate of their clients."""

        def server_context(self, *names: str, alpn: Sequence[str] = ("http/1.1",)) -> ssl.SSLContext:
            context = super().server_context(*names, alpn=alpn)
            context.verify_mode, context.maximum_version = ssl.CERT_REQUIRED, version
            context.load_verify_locations(self.ca_file)
            return context

    authority = Demanding(tmp_path)
    upstream = recorder(tls=authority, names=["localhost"])
    assert cause in reason(mitmdump, f"https://localhost:{upstream.port}", authority.ca_file)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_service_that_is_not_http(mitmdump: StartMitmdump, gibberish: int, scheme: str) -> None:
    assert "the upstream does not answer as HTTP" in reason(mitmdump, f"{scheme}://127.0.0.1:{gibberish}")


@pytest.mark.parametrize(
    ("message", "cause"),
    [
        (
            "Upstream proxy 10.0.0.1:3128 refused HTTP CONNECT request: 407 Proxy Required",
            "refused the connection with 407",
        ),
        ("[Errno 110] Connection timed out", "timed out"),
        ("[Errno 101] Network is unreachable", "network cannot be reached"),
        ("server closed connection", "closed the connection without an answer"),
        ("[Errno -2] Name or service not known", "name was not found"),
        ("[Errno 8] nodename nor servname provided, or not known", "name was not found"),
    ],
)
def test_the_words_of_systems_and_proxies_are_understood(message: str, cause: str) -> None:
    found = cause_of(message)
    assert found is not None
    assert cause in found


def test_a_message_without_a_known_cause_is_not_repeated() -> None:
    assert cause_of("sk-ant-key") is None
