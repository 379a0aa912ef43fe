"""The gateway inside mitmproxy's own layers, for tests that send it bytes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.constants import GW
from support.layers import Gateway


@pytest.fixture
def gateway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gateway]:
    """A gateway whose connections are bytes in and bytes out."""
    monkeypatch.setenv("TEST_GW_KEY", GW)
    with asyncio.Runner() as runner:
        gateway = Gateway(tmp_path, runner)
        yield gateway
        gateway.close()
