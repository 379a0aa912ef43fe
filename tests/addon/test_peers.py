"""Peers are admitted by their address, or by the mode of the listener where addresses mean nothing."""

import pytest
from mitmproxy.proxy.mode_specs import ProxyMode
from mitmproxy.proxy.server_hooks import ServerConnectionHookData
from mitmproxy.test import tflow

from mitm_gateway.exchange.guard import Policy
from mitm_gateway.mitm.connections import Connections
from mitm_gateway.mitm.lifecycle import Lifecycle
from mitm_gateway.mitm.options import Settings
from mitm_gateway.mitm.recorder import Recorder
from mitm_gateway.mitm.requests import Requests
from support.table import table


@table(
    ("mode", "peer", "allowed"),
    [
        ("regular", "127.0.0.1", True),
        ("regular", "127.9.9.9", True),
        ("regular", "::1", True),
        ("regular", "::ffff:127.0.0.1", True),
        ("regular", "10.0.0.1", False),
        ("regular", "169.254.0.1", False),
        ("regular", "fe80::1%eth0", False),
        ("local", "169.254.0.1", True),
        ("local:curl", "127.0.0.1", True),
        ("wireguard", "10.0.0.1", False),
        # A peer of a tunnel chooses the address that it shows.
        ("wireguard", "127.0.0.1", False),
        ("tun", "127.0.0.1", False),
    ],
)
@table("has_keys", [False, True])
def test_a_peer_is_judged_by_mode_and_address(mode: str, peer: str, allowed: bool, has_keys: bool) -> None:
    requests = Requests()
    lifecycle = Lifecycle(None, Recorder(), requests)
    lifecycle.settings = Settings(policy=Policy(client_keys=(b"k",) if has_keys else None))
    client = tflow.tclient_conn()
    client.peername, client.proxy_mode, client.error = (peer, 1), ProxyMode.parse(mode), None
    Connections(lifecycle, requests).admit(client)
    assert (client.error is None) is (allowed or has_keys)


def test_a_passing_host_that_fails_is_logged_once_on_one_line(caplog: pytest.LogCaptureFixture) -> None:
    requests = Requests()
    connections = Connections(Lifecycle(None, Recorder(), requests), requests)
    server = tflow.tserver_conn()
    server.address, server.error = ("passing.test", 443), "a fault\nof the peer\x1b]0;title\x07\x9b"
    for _ in range(2):
        connections.note_failed(ServerConnectionHookData(server, tflow.tclient_conn()))
    [message] = caplog.messages
    assert message.startswith("passing.test:443: a fault")
    assert message.isprintable()


# ---- the gateway as its own client ----

LISTENER, UPSTREAM, NOW = ("127.0.0.1", 8080), ("127.0.0.1", 9000), 1000.0


class Chain:
    """Connections to an upstream whose local end is then the peer of a client's connection."""

    def __init__(self) -> None:
        requests = Requests()
        self._connections = Connections(Lifecycle(None, Recorder(), requests), requests)
        self._client = tflow.tclient_conn()
        self._port = 50_000

    def comes_back(self, remote: tuple[str, int], *, after_s: float = 0.1) -> bool:
        """Connect to an upstream for the last client, and return whether the next client is the gateway."""
        self._port += 1
        server = tflow.tserver_conn()
        server.sockname, server.peername = ("127.0.0.1", self._port), remote
        server.timestamp_tcp_setup = NOW
        self._connections.note_opened(self._client, server)
        self._client = tflow.tclient_conn()
        self._client.peername, self._client.sockname = ("127.0.0.1", self._port), LISTENER
        self._client.timestamp_start = NOW + after_s
        return self._connections.is_own(self._client)


def test_a_connection_with_both_ends_here_is_the_gateways_own() -> None:
    assert Chain().comes_back(LISTENER)
    assert not Chain().comes_back(LISTENER, after_s=60)


def test_a_client_that_happens_to_have_the_port_of_an_upstreams_connection_is_served() -> None:
    assert not Chain().comes_back(UPSTREAM)


def test_a_chain_through_a_port_mapping_ends_after_a_few_connections() -> None:
    chain = Chain()
    assert [chain.comes_back(UPSTREAM) for _ in range(5)] == [False, False, False, True, True]
