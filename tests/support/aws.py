"""The two AWS formats that Bedrock clients and upstreams speak: event streams and Signature Version 4.

Written from AWS' descriptions and not with botocore, which signs in the gateway.
"""

import hashlib
import hmac
import json
import re
from collections.abc import Sequence
from urllib.parse import quote

from support.answers import Seen, Stream
from support.eventstreams import chunk


def event_stream(events: Sequence[bytes]) -> Stream:
    """Server-sent events of the Messages API as Bedrock streams them."""
    frames = tuple(chunk(json.loads(event.partition(b"data: ")[2])) for event in events)
    return Stream(frames, gated=False, headers=(("Content-Type", "application/vnd.amazon.eventstream"),))


def signature_fits(request: Seen, secret_key: str, *, service: str, region: str) -> bool:
    """Return True if the received request has the signature of this key."""
    found = re.fullmatch(
        r"AWS4-HMAC-SHA256 Credential=[^/]+/(\d{8})/([^/]+)/([^/]+)/aws4_request, "
        r"SignedHeaders=([^,]+), Signature=([0-9a-f]{64})",
        request.header("authorization") or "",
    )
    if not found or (found[2], found[3]) != (region, service) or "host" not in found[4].split(";"):
        return False
    day, names = found[1], found[4].split(";")
    query = "&".join(sorted(request.target.partition("?")[2].split("&")))
    canonical = "\n".join(
        [
            request.method,
            quote(request.path, safe="/~"),
            query,
            *(f"{name}:{' '.join((request.header(name) or '').split())}" for name in names),
            "",
            found[4],
            hashlib.sha256(request.body).hexdigest(),
        ]
    )
    to_sign = "\n".join(
        [
            "AWS4-HMAC-SHA256",
            request.header("x-amz-date") or "",
            f"{day}/{region}/{service}/aws4_request",
            hashlib.sha256(canonical.encode()).hexdigest(),
        ]
    )
    key = f"AWS4{secret_key}".encode()
    for part in (day, region, service, "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return hmac.new(key, to_sign.encode(), hashlib.sha256).hexdigest() == found[5]
