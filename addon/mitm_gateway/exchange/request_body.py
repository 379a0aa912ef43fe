"""The body of a request, read for the models that it names."""

from __future__ import annotations

from ..llm.calls import call_of
from ..wire.content_encoding import decode
from ..wire.request import RequestHead
from .json_body import Body, is_json, scan


def read_body(head: RequestHead, content: bytes, limit: int) -> Body | None:
    """Return the body, or None if it is empty or not JSON. Raises BodyError, DecodingError and TooLarge."""
    if not content:
        return None
    raw = decode(content, head.get("content-encoding") or "", limit)
    return scan(raw, call_of(head).api) if is_json(head.get("content-type") or "", raw) else None


def announces_more_than(limit: int, head: RequestHead) -> bool:
    """Return whether a request says that its body is larger than this many bytes."""
    announced = head.get("content-length")
    return bool(announced and announced.isdecimal() and int(announced) > limit)
