"""A reader of AWS's binary event stream (`application/vnd.amazon.eventstream`), in which Bedrock responds.

A frame is total length, length of the headers, a checksum of these two, headers, payload, checksum, all big
endian: https://docs.aws.amazon.com/AmazonS3/latest/API/RESTSelectObjectAppendix.html.
Checksums are not verified.
"""

import base64
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

from ..text.bounded_json import parsed, parsed_object

CONTENT_TYPE = "application/vnd.amazon.eventstream"
_PRELUDE = struct.Struct(">IIi")
_CHECKSUM_SIZE = 4
# The service's own limit for a frame; a larger one is garbage.
MAX_FRAME = 16 << 20
# Sizes of the header values of fixed length: true, false, byte, short, integer, long, timestamp, UUID.
FIXED = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}
_BYTES, _TEXT = 6, 7

# The start of a frame, the end of its headers and its end; a plain tuple, as streams have many.
Span: TypeAlias = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Frame:
    """One message of the stream, with its text headers."""

    headers: dict[str, str]
    payload: bytes


def spans(data: bytes | bytearray) -> Iterator[Span]:
    """Yield the positions of the complete frames, up to the first invalid one."""
    at, size, unpack, data_end = 0, _PRELUDE.size, _PRELUDE.unpack_from, len(data)
    while data_end - at >= size:
        total, headers_size, _ = unpack(data, at)
        head_end, end = at + size + headers_size, at + total
        if total > MAX_FRAME or head_end > end - _CHECKSUM_SIZE or end > data_end:
            return
        yield at, head_end, end
        at = end


def frame_at(data: bytes | bytearray, span: Span) -> Frame:
    """Return the frame at a position that `spans` yielded."""
    start, head_end, end = span
    headers = bytes(data[start + _PRELUDE.size : head_end])
    return Frame(dict(_headers(headers)), bytes(data[head_end : end - _CHECKSUM_SIZE]))


def frames(data: bytes | bytearray) -> tuple[list[Frame], int]:
    """Return the complete frames, and the number of bytes behind them."""
    found = list(spans(data))
    return [frame_at(data, span) for span in found], len(data) - (found[-1][2] if found else 0)


def _headers(data: bytes) -> Iterator[tuple[str, str]]:
    at = 0
    while at < len(data):
        name_end = at + 1 + data[at]
        name, kind, at = data[at + 1 : name_end], data[name_end : name_end + 1], name_end + 1
        if kind and kind[0] in (_BYTES, _TEXT):
            value_end = at + 2 + int.from_bytes(data[at : at + 2])
            if kind[0] == _TEXT:
                yield name.decode("utf-8", "replace"), data[at + 2 : value_end].decode("utf-8", "replace")
            at = value_end
        elif kind and kind[0] in FIXED:
            at += FIXED[kind[0]]
        else:
            return


def event(frame: Frame) -> Any:
    """Return the event in a frame: the model's event or an error. Raises ValueError if there is none."""
    if frame.headers.get(":message-type") in ("exception", "error"):
        kind = frame.headers.get(":exception-type") or frame.headers.get(":error-code") or "error"
        return {"type": "error", "error": {"type": kind, **(parsed_object(frame.payload) or {})}}
    payload = parsed(frame.payload)
    if isinstance(payload, dict) and isinstance(payload.get("bytes"), str):
        return parsed(base64.b64decode(payload["bytes"]))
    name = frame.headers.get(":event-type")
    # Only the frame names the events of Converse.
    return {**payload, "type": name} if name and isinstance(payload, dict) else payload
