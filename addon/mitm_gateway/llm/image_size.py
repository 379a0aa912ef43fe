"""Width and height of an image, from the beginning of its file."""

import base64
import binascii

# Enough for the metadata that precedes the size in a photo.
_MAX_BASE64 = 1 << 17
# Huffman tables, extensions and arithmetic coding share the range of the frame headers.
_NO_FRAMES = (0xC4, 0xC8, 0xCC)


def pixels(data: str) -> tuple[int, int] | None:
    """Return width and height of a PNG, GIF, JPEG or WebP image in base64; None for any other data."""
    start = data[:_MAX_BASE64]
    try:
        raw = base64.b64decode(start[: len(start) // 4 * 4], validate=False)
    except (binascii.Error, ValueError):
        return None
    found = _png(raw) or _gif(raw) or _webp(raw) or _jpeg(raw)
    return found if found and all(found) else None


def _png(raw: bytes) -> tuple[int, int] | None:
    if not raw.startswith(b"\x89PNG\r\n\x1a\n") or raw[12:16] != b"IHDR" or len(raw) < 24:
        return None
    return int.from_bytes(raw[16:20], "big"), int.from_bytes(raw[20:24], "big")


def _gif(raw: bytes) -> tuple[int, int] | None:
    if not raw.startswith((b"GIF87a", b"GIF89a")) or len(raw) < 10:
        return None
    return int.from_bytes(raw[6:8], "little"), int.from_bytes(raw[8:10], "little")


def _webp(raw: bytes) -> tuple[int, int] | None:
    if raw[:4] != b"RIFF" or raw[8:12] != b"WEBP" or len(raw) < 30:
        return None
    match raw[12:16]:
        case b"VP8X":
            return int.from_bytes(raw[24:27], "little") + 1, int.from_bytes(raw[27:30], "little") + 1
        case b"VP8L":
            bits = int.from_bytes(raw[21:25], "little")
            return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        case b"VP8 ":
            width, height = int.from_bytes(raw[26:28], "little"), int.from_bytes(raw[28:30], "little")
            return width & 0x3FFF, height & 0x3FFF
    return None


def _jpeg(raw: bytes) -> tuple[int, int] | None:
    at = 2 if raw.startswith(b"\xff\xd8") else len(raw)
    while at + 9 <= len(raw) and raw[at] == 0xFF:
        marker, length = raw[at + 1], int.from_bytes(raw[at + 2 : at + 4], "big")
        if 0xC0 <= marker <= 0xCF and marker not in _NO_FRAMES:
            return int.from_bytes(raw[at + 7 : at + 9], "big"), int.from_bytes(raw[at + 5 : at + 7], "big")
        at += 2 + max(length, 2)
    return None
