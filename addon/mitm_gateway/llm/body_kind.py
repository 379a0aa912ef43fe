"""The kind of a response's body, from its first bytes and its Content-Type."""

import re
from typing import Literal, TypeAlias

from ..wire import aws_eventstream

BodyKind: TypeAlias = Literal["json", "sse", "aws_eventstream", "other"]

_BLANKS = re.compile(rb"(?:\xef\xbb\xbf)?[ \t\r\n]*")
_BOM = b"\xef\xbb\xbf"
FIELDS = (b"data:", b"event:", b"id:", b"retry:", b":")


def media_type(content_type: str) -> str:
    """Return the media type of a Content-Type, in lower case."""
    return content_type.partition(";")[0].strip().lower()


def declared_kind(content_type: str) -> BodyKind:
    """Return the kind that a Content-Type declares."""
    match media_type(content_type):
        case "text/event-stream":
            return "sse"
        case aws_eventstream.CONTENT_TYPE:
            return "aws_eventstream"
        case kind if kind == "application/json" or kind.endswith("+json"):
            return "json"
    return "other"


def kind_of(content_type: str, start: bytes, *, is_whole: bool = False) -> BodyKind | None:
    """Return the kind of a body that starts like this, or None if more bytes are necessary to tell.

    The first bytes decide, because upstreams mislabel streams; the Content-Type decides where they do not.
    """
    declared = declared_kind(content_type)
    if declared == "aws_eventstream":
        return declared
    found = _BLANKS.match(start)
    rest = start[found.end() :] if found else start
    if rest[:1] in (b"{", b"["):
        return "json"
    if rest.startswith(FIELDS):
        return "sse"
    is_open = not rest or any(mark.startswith(rest) for mark in (*FIELDS, _BOM))
    return None if is_open and not is_whole else declared
