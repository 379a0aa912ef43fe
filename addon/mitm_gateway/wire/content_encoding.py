"""Bounded decoders for Content-Encoding: no input makes them produce much more than the caller allows."""

# Every decoder yields pieces of bounded size. The collector counts them and stops early, so a bomb takes no more memory
# and time than the limit allows.

import io
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import brotli

from ..text.turns import Turns, finish

# brotli and one of these are mitmproxy's own dependencies; which one of these changed with 12.3.
try:
    from compression import zstd  # Python 3.14
except ImportError:
    try:
        from backports import zstd
    except ImportError:
        zstd = None
        import zstandard

# undici refuses more than five codings; each layer may grow to the limit once more.
MAX_CODINGS = 5
# gzip members and zstd frames in one body. Empty ones have 10 to 20 bytes and take microseconds each, so an unbounded body
# of them would block the event loop for a minute. Block-wise writers (bgzip: 64 KiB) stay below the bound.
MAX_GZIP_MEMBERS = 4096

# A turn ends after a MiB of output; a piece counts as this many bytes more, as many are empty.
_TURN, _COST = 1 << 20, 512
_PIECE = 256 * 1024
_SLICE = 64 * 1024
# 4 bytes of zstd (a run-length block) produce 128 KiB, so one slice produces 16 MiB at most.
_ZSTD_SLICE = 512
# RFC 9659: decoders may refuse a zstd window of more than 8 MiB; a larger one is accepted within the limit.
_ZSTD_WINDOW = 8 * 1024 * 1024
# About 20 bytes of brotli produce 16 MiB, and brotli 1.1 has no output limit: small slices are the only bound.
# (32 bytes: up to two such blocks at once, and 2 ms for 100 KB of input.)
_BROTLI_SLICE = 32
_BROTLI_BOUNDED = hasattr(brotli.Decompressor, "can_accept_more_data")  # brotli 1.2

Codec = Callable[[bytes, int], Iterator[bytes]]


class DecodingError(ValueError):
    """A body that cannot be decoded; the text is a short reason for the client."""


class TooLarge(DecodingError):
    """A body that would exceed the limit."""


def decode(data: bytes, encoding: str, limit: int) -> bytes:
    """Return the decoded body of at most `limit` bytes; `encoding` is the raw header value."""
    return finish(decode_in_turns(data, encoding, limit))


def decode_in_turns(data: bytes, encoding: str, limit: int) -> Turns[bytes]:
    """Decode a body a piece at a time."""
    codecs = _codecs(encoding) if encoding else []
    if not codecs and len(data) > limit:
        raise TooLarge(f"the body is larger than {limit} bytes")
    for codec in codecs:
        data = yield from _collect(codec, data, limit)
    return data


def decode_prefix(data: bytes, encoding: str, limit: int) -> bytes:
    """Return as much as can be decoded of a body that may be cut off or damaged, up to `limit` bytes.

    Raises DecodingError for a coding that is not known: then there is nothing to show.
    """
    for codec in _codecs(encoding):
        data = _collect_prefix(codec, data, limit)
    return data[:limit]


def _codecs(encoding: str) -> list[Codec]:
    """Return the decoders in the order of their use: the coding named last was applied last."""
    names = [name.strip().lower() for name in encoding.split(",")]
    codings = [name for name in reversed(names) if name not in ("", "identity")]
    if len(codings) > MAX_CODINGS:
        raise DecodingError(f"the body has more than {MAX_CODINGS} content encodings")
    if not all(name in _CODECS for name in codings):
        raise DecodingError(f"the content encoding is not one of {', '.join(_CODECS)}")
    return [_CODECS[name] for name in codings]


def _collect(codec: Codec, data: bytes, limit: int) -> Turns[bytes]:
    # An empty body (HEAD, 204, an empty POST) may have the header too.
    if not data:
        return data
    # BytesIO returns its buffer without a copy, while joining a list would need the memory twice. It is closed because
    # the traceback of an exception keeps this frame alive.
    work = 0
    with io.BytesIO() as body:
        for piece in codec(data, limit):
            if body.tell() + len(piece) > limit:
                raise TooLarge(f"the decoded body is larger than {limit} bytes")
            body.write(piece)
            work += _COST + len(piece)
            if work > _TURN:
                work = 0
                yield
        return body.getvalue()


def _collect_prefix(codec: Codec, data: bytes, limit: int) -> bytes:
    body = io.BytesIO()
    try:
        for piece in codec(data, limit):
            body.write(piece)
            if body.tell() >= limit:
                break
    except DecodingError:
        pass
    return body.getvalue()


def _slices(data: bytes, size: int) -> Iterator[bytes]:
    view = memoryview(data)
    return (bytes(view[at : at + size]) for at in range(0, len(data), size))


def _inflate(data: bytes, wbits: int, max_members: int) -> Iterator[bytes]:
    """Yield the pieces of up to `max_members` consecutive streams."""
    inflater = zlib.decompressobj(wbits)
    members = 1
    for chunk in _slices(data, _SLICE):
        rest = chunk
        # Input can be used up while output waits: after a full piece, ask for another.
        full = False
        while rest or full:
            if inflater.eof:
                inflater = zlib.decompressobj(wbits)
                members += 1
            if members > max_members:
                raise DecodingError("the compressed body has trailing data")
            try:
                piece = inflater.decompress(rest, _PIECE)
            except zlib.error:
                raise DecodingError("the compressed body is damaged") from None
            yield piece
            rest = inflater.unused_data if inflater.eof else inflater.unconsumed_tail
            full = len(piece) == _PIECE and not inflater.eof
    if not inflater.eof:
        raise DecodingError("the compressed body is cut off")


def _gzip(data: bytes, _limit: int) -> Iterator[bytes]:
    return _inflate(data, 16 + zlib.MAX_WBITS, MAX_GZIP_MEMBERS)


def _deflate(data: bytes, _limit: int) -> Iterator[bytes]:
    """Yield the pieces of zlib data (RFC 9110) or of raw deflate data, which some senders use."""
    return _inflate(data, zlib.MAX_WBITS if _is_zlib(data) else -zlib.MAX_WBITS, 1)


def _is_zlib(data: bytes) -> bool:
    try:
        zlib.decompressobj().decompress(data[:_SLICE], _PIECE)
    except zlib.error:
        return False
    return True


def _brotli(data: bytes, _limit: int) -> Iterator[bytes]:
    decoder = brotli.Decompressor()
    pieces = _brotli_bounded(decoder, data) if _BROTLI_BOUNDED else _brotli_sliced(decoder, data)
    try:
        yield from pieces
        # Of a body that is cut off, one call returns 32 KiB at most; the rest waits inside.
        while not decoder.is_finished() and (piece := decoder.process(b"")):
            yield piece
    except brotli.error:
        raise DecodingError("the compressed body is damaged or has trailing data") from None
    if not decoder.is_finished():
        raise DecodingError("the compressed body is cut off")


def _brotli_sliced(decoder: Any, data: bytes) -> Iterator[bytes]:
    return (decoder.process(chunk) for chunk in _slices(data, _BROTLI_SLICE))


def _brotli_bounded(decoder: Any, data: bytes) -> Iterator[bytes]:
    for chunk in _slices(data, _SLICE):
        yield decoder.process(chunk, output_buffer_limit=_PIECE)
        while not decoder.can_accept_more_data():
            yield decoder.process(b"", output_buffer_limit=_PIECE)


def _zstd(data: bytes, limit: int) -> Iterator[bytes]:
    new_frame, fault = _zstd_frames(max(limit, _ZSTD_WINDOW))
    frame = new_frame()
    frames = 1
    for chunk in _slices(data, _ZSTD_SLICE):
        rest = chunk
        while rest:
            if frame.eof:
                frame = new_frame()
                frames += 1
            if frames > MAX_GZIP_MEMBERS:
                raise DecodingError("the compressed body has too many frames")
            try:
                yield frame.decompress(rest)
            except fault:
                raise DecodingError("the compressed body is damaged or has trailing data") from None
            rest = frame.unused_data if frame.eof else b""
    if not frame.eof:
        raise DecodingError("the compressed body is cut off")


def _zstd_frames(window: int) -> tuple[Callable[[], Any], type[Exception]]:
    """Return a factory of decoders for one frame, and the exception they raise; `window` is their limit in bytes."""
    if zstd is None:
        context = zstandard.ZstdDecompressor(max_window_size=window)
        return lambda: context.decompressobj(write_size=_SLICE), zstandard.ZstdError
    # The limit is a power of two, and 2 GiB at most.
    options = {zstd.DecompressionParameter.window_log_max: min(window.bit_length() - 1, 31)}
    return lambda: zstd.ZstdDecompressor(options=options), zstd.ZstdError


_CODECS: dict[str, Codec] = {
    "gzip": _gzip,
    "x-gzip": _gzip,
    "deflate": _deflate,
    "br": _brotli,
    "zstd": _zstd,
}
