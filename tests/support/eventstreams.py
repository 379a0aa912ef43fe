"""Bedrock's binary event streams, made for tests."""

from __future__ import annotations

import base64
import json
import struct
import zlib
from typing import Any


def frame(payload: bytes, **headers: str) -> bytes:
    """One frame with text headers; `_` in a name stands for `-`, and each begins with a colon."""
    head = b"".join(_header(f":{name.replace('_', '-')}", value) for name, value in headers.items())
    prelude = struct.pack(">II", 16 + len(head) + len(payload), len(head))
    prelude += struct.pack(">I", zlib.crc32(prelude))
    whole = prelude + head + payload
    return whole + struct.pack(">I", zlib.crc32(whole))


def _header(name: str, value: str) -> bytes:
    return bytes([len(name)]) + name.encode() + b"\x07" + struct.pack(">H", len(value)) + value.encode()


def chunk(event: dict[str, Any]) -> bytes:
    """A model's event as `InvokeModelWithResponseStream` sends it."""
    inner = base64.b64encode(json.dumps(event).encode()).decode()
    payload = json.dumps({"bytes": inner, "p": "abc"}).encode()
    return frame(payload, event_type="chunk", content_type="application/json", message_type="event")
