"""The two AWS formats that Bedrock clients and upstreams speak: event streams and Signature Version 4."""

import base64
import json
import re
import struct
import zlib
from collections.abc import Sequence
from typing import Any

from support.answers import Seen, Stream


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


def converse(kind: str, **payload: Any) -> bytes:
    """An event as `ConverseStream` sends it."""
    data = json.dumps({**payload, "p": "abc"}).encode()
    return frame(data, event_type=kind, content_type="application/json", message_type="event")


def converse_events(*words: str) -> tuple[bytes, ...]:
    """A streamed answer of Converse with a thought, a text and a tool call."""
    return (
        converse("messageStart", role="assistant"),
        converse("contentBlockDelta", contentBlockIndex=0, delta={"reasoningContent": {"text": "a thought"}}),
        converse("contentBlockDelta", contentBlockIndex=0, delta={"reasoningContent": {"signature": "c2ln"}}),
        converse("contentBlockStop", contentBlockIndex=0),
        *(converse("contentBlockDelta", contentBlockIndex=1, delta={"text": word}) for word in words),
        converse("contentBlockStop", contentBlockIndex=1),
        converse(
            "contentBlockStart",
            contentBlockIndex=2,
            start={"toolUse": {"toolUseId": "tooluse_1", "name": "Bash"}},
        ),
        converse("contentBlockDelta", contentBlockIndex=2, delta={"toolUse": {"input": '{"command": '}}),
        converse("contentBlockDelta", contentBlockIndex=2, delta={"toolUse": {"input": '"ls"}'}}),
        converse("contentBlockStop", contentBlockIndex=2),
        converse("messageStop", stopReason="tool_use"),
        converse(
            "metadata",
            usage={"inputTokens": 11, "outputTokens": 7, "totalTokens": 23, "cacheReadInputTokens": 5},
            metrics={"latencyMs": 12},
        ),
    )


def event_stream(events: Sequence[bytes]) -> Stream:
    """Server-sent events of the Messages API as Bedrock streams them."""
    frames = tuple(chunk(json.loads(event.partition(b"data: ")[2])) for event in events)
    return Stream(frames, gated=False, headers=(("Content-Type", "application/vnd.amazon.eventstream"),))


_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=[^/]+/\d{8}/([^/]+)/([^/]+)/aws4_request, "
    r"SignedHeaders=([^,]+), Signature=([0-9a-f]{64})"
)


def signature_fits(request: Seen, secret_key: str, *, service: str, region: str) -> bool:
    """Return True if the received request has the signature of this key, over its Host at least."""
    from botocore.auth import SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    found = _AUTHORIZATION.fullmatch(request.header("authorization") or "")
    if not found or found.groups()[:2] != (region, service) or "host" not in found[3].split(";"):
        return False
    headers = {name: request.header(name) for name in found[3].split(";")}
    received = AWSRequest(request.method, f"https://{headers['host']}{request.target}", headers, request.body)
    received.context["timestamp"] = request.header("x-amz-date")
    signer = SigV4Auth(Credentials("id", secret_key), service, region)
    to_sign = signer.string_to_sign(received, signer.canonical_request(received))
    return bool(signer.signature(to_sign, received) == found[4])
