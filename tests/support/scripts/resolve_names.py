"""A script for mitmproxy under test: names resolve to loopback by the table in `TEST_NAMES`, and no further.

`TEST_NAMES` is a JSON object from "host:port" (or "host" for every port) to a port on 127.0.0.1. mitmproxy
connects with `asyncio.open_connection`; certificates are still checked against the real name.
"""

import asyncio
import ipaddress
import json
import os
from typing import Any

_PORTS: dict[str, int] = json.loads(os.environ.get("TEST_NAMES", "{}"))
_open_connection = asyncio.open_connection


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


async def _open_test_connection(
    host: str, port: int, **options: Any
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    mapped = _PORTS.get(f"{host}:{port}", _PORTS.get(host))
    if mapped is not None:
        return await _open_connection("127.0.0.1", mapped, **options)
    if _is_loopback(host):
        return await _open_connection(host, port, **options)
    raise OSError(f"the test knows no {host}:{port}")


def running() -> None:
    """Print when mitmproxy is up: after a fault found at start has ended it, though it listened already."""
    asyncio.get_running_loop().call_later(0.05, print, "harness: mitmproxy is up")


asyncio.open_connection = _open_test_connection  # type: ignore[assignment]
