"""The addon inside mitmproxy: in its own layers, for tests that send it bytes, and with hooks that a test calls."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from mitmproxy.addons.mapremote import MapRemote
from mitmproxy.addons.next_layer import NextLayer
from mitmproxy.addons.proxyserver import Proxyserver
from mitmproxy.test import taddons

from mitm_gateway.mitm.addon import GatewayAddon
from mitm_gateway.patches import table
from support.constants import GW
from support.hooks import RULES
from support.layers import Gateway
from support.patched import no_patches


@pytest.fixture
def gateway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gateway]:
    """A gateway whose connections are bytes in and bytes out."""
    monkeypatch.setenv("GW_KEY", GW)
    with asyncio.Runner() as runner:
        gateway = Gateway(tmp_path, runner)
        yield gateway
        gateway.close()


@pytest.fixture
async def patched() -> AsyncIterator[taddons.context]:
    """mitmproxy with the safety patches, and without the addon."""
    patches = no_patches()
    with taddons.context(Proxyserver(), NextLayer()) as context:
        assert table.apply(patches, "safety") == []
        context.options.http2_ping_keepalive = 0  # no clock
        yield context
        patches.undo("safety")


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    """A rules file."""
    file = tmp_path / "rules.yaml"
    file.write_text(RULES)
    return file


@pytest.fixture
async def context(rules: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[taddons.context]:
    """mitmproxy with the addon after its start."""
    monkeypatch.setenv("GW_KEY", GW)
    addon = GatewayAddon()
    with taddons.context(Proxyserver(), MapRemote(), addon) as context:
        context.configure(addon, gateway_rules=str(rules))
        addon.running()
        yield context
        addon.done()


@pytest.fixture
def addon(context: taddons.context) -> Any:
    """The addon after its start."""
    return context.master.addons.get(GatewayAddon.name)
