"""Peers are admitted by their address, or by the mode of the listener where addresses mean nothing."""

from __future__ import annotations

import pytest
from mitmproxy.proxy.mode_specs import ProxyMode
from mitmproxy.test import tflow

from mitm_gateway.exchange.guard import Policy
from mitm_gateway.mitm.connections import Connections
from mitm_gateway.mitm.lifecycle import Lifecycle
from mitm_gateway.mitm.options import Settings
from mitm_gateway.mitm.recorder import Recorder
from mitm_gateway.mitm.requests import Requests


@pytest.mark.parametrize(
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
@pytest.mark.parametrize("has_keys", [False, True])
def test_a_peer_is_judged_by_mode_and_address(mode: str, peer: str, allowed: bool, has_keys: bool) -> None:
    requests = Requests()
    lifecycle = Lifecycle(None, Recorder(), requests)
    lifecycle.settings = Settings(policy=Policy(client_keys=(b"k",) if has_keys else None))
    client = tflow.tclient_conn()
    client.peername, client.proxy_mode, client.error = (peer, 1), ProxyMode.parse(mode), None
    Connections(lifecycle, requests).admit(client)
    assert (client.error is None) is (allowed or has_keys)
