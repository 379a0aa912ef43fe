"""Content encodings: each is decoded within its limit, and nothing else is."""

import contextlib
import gzip
import random
import tracemalloc
import zlib
from collections.abc import Callable
from functools import partial

import brotli
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from mitm_gateway.wire.content_encoding import (
    MAX_GZIP_MEMBERS,
    DecodingError,
    TooLarge,
    decode,
    decode_in_turns,
    decode_prefix,
)
from support.table import table

MIB = 1 << 20
PLAIN = b'{"model":"claude-opus-4-8","text":"' + b"the quick brown fox " * 400 + b'"}'

Encode = Callable[[bytes], bytes]


gzipped: Encode = partial(gzip.compress, mtime=0)
brotlied: Encode = partial(brotli.compress, quality=4)
zstd: Encode = zstandard.ZstdCompressor().compress


def raw_deflate(data: bytes) -> bytes:
    deflater = zlib.compressobj(wbits=-15)
    return deflater.compress(data) + deflater.flush()


def zstd_without_size(data: bytes) -> bytes:
    writer = zstandard.ZstdCompressor().compressobj()
    return writer.compress(data) + writer.flush()


CODECS: list[tuple[str, Encode]] = [
    ("gzip", gzipped),
    ("deflate", zlib.compress),
    ("deflate", raw_deflate),
    ("br", brotlied),
    ("zstd", zstd),
    ("zstd", zstd_without_size),
]


@table(("encoding", "encode"), CODECS)
def test_each_coding_is_decoded(encoding: str, encode: Encode) -> None:
    assert decode(encode(PLAIN), encoding, MIB) == PLAIN


@table("encoding", ["", "identity", " Identity ", "identity, identity", ","])
def test_identity_is_ignored(encoding: str) -> None:
    assert decode(PLAIN, encoding, MIB) is PLAIN


@table("encoding", ["GZIP", "x-gzip", " gzip ", "identity, gzip"])
def test_names_ignore_case_and_white_space(encoding: str) -> None:
    assert decode(gzipped(PLAIN), encoding, MIB) == PLAIN


def test_a_list_is_decoded_from_its_end() -> None:
    assert decode(brotlied(gzipped(PLAIN)), "gzip, br", MIB) == PLAIN


@table("encoding", ["compress", "gzip, rot13", "gzip;q=1", "gzip," * 6 + "gzip"])
def test_an_unknown_coding_or_too_many_are_refused(encoding: str) -> None:
    with pytest.raises(DecodingError, match="content encoding"):
        decode(gzipped(PLAIN), encoding, MIB)


def test_an_unknown_coding_is_not_quoted_back() -> None:
    with pytest.raises(DecodingError) as caught:
        decode(PLAIN, "sk-ant-secret", MIB)
    assert str(caught.value) == "the content encoding is not one of gzip, x-gzip, deflate, br, zstd"


@table(("encoding", "encode"), [*CODECS, ("", bytes)])
def test_a_body_of_exactly_the_limit_passes_and_one_byte_more_does_not(encoding: str, encode: Encode) -> None:
    assert decode(encode(PLAIN), encoding, len(PLAIN)) == PLAIN
    with pytest.raises(TooLarge):
        decode(encode(PLAIN), encoding, len(PLAIN) - 1)


@table(("encoding", "encode"), CODECS)
@table("cut", [1, 10, len(PLAIN)])
def test_a_cut_off_body_is_corrupt(encoding: str, encode: Encode, cut: int) -> None:
    data = encode(PLAIN)
    with pytest.raises(DecodingError, match="compressed"):
        decode(data[: max(1, len(data) - cut)], encoding, MIB)


@table(("encoding", "encode"), CODECS)
@table("junk", [b"x", b"\0", b"junk" * 50_000])
def test_trailing_data_is_corrupt(encoding: str, encode: Encode, junk: bytes) -> None:
    with pytest.raises(DecodingError, match="compressed"):
        decode(encode(PLAIN) + junk, encoding, MIB)


@table("encoding", ["gzip", "br", "zstd", "deflate"])
def test_plain_text_under_a_coding_is_corrupt(encoding: str) -> None:
    with pytest.raises(DecodingError, match="compressed"):
        decode(PLAIN, encoding, MIB)


@table("encoding", ["gzip", "br", "zstd", "deflate", "gzip, br"])
def test_an_empty_body_stays_empty(encoding: str) -> None:
    assert decode(b"", encoding, MIB) == b""


@table(("encoding", "encode"), [("gzip", gzipped), ("zstd", zstd)])
def test_several_members_are_one_body(encoding: str, encode: Encode) -> None:
    assert decode(encode(PLAIN) + encode(b"") + encode(PLAIN), encoding, MIB) == PLAIN + PLAIN


@table(("encoding", "encode"), [("gzip", gzipped), ("zstd", zstd)])
def test_a_flood_of_empty_members_is_refused(encoding: str, encode: Encode) -> None:
    assert decode(encode(b"") * MAX_GZIP_MEMBERS, encoding, MIB) == b""
    with pytest.raises(DecodingError, match="compressed"):
        decode(encode(b"") * (MAX_GZIP_MEMBERS + 1), encoding, MIB)


@pytest.mark.parametrize(("encoding", "encode"), CODECS)
def test_a_bomb_takes_little_more_than_the_limit(encoding: str, encode: Encode) -> None:
    # 64 MiB from a few kilobytes; A44 is the same at thirty times the size.
    bomb = encode(bytes(64 * MIB))
    tracemalloc.start()
    try:
        with pytest.raises(TooLarge):
            decode(bomb, encoding, 4 * MIB)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # brotli 1.1 gives up to two blocks of 16 MiB for one slice of input.
    assert peak < 50 * MIB


@table(("encoding", "encode"), [*CODECS, ("gzip, br", lambda data: brotlied(gzipped(data)))])
def test_a_large_body_is_decoded_in_turns(encoding: str, encode: Encode) -> None:
    # Letters at random: brotli 1.1 and zstd unpack runs of one letter in one piece.
    data = random.Random(7).randbytes(2 * MIB).hex().encode()
    turns = decode_in_turns(encode(data), encoding, len(data))
    assert sum(1 for _ in turns) >= 2
    assert not list(decode_in_turns(encode(PLAIN), encoding, MIB))


def test_a_bomb_inside_a_bomb_is_stopped_at_the_first_layer() -> None:
    with pytest.raises(TooLarge):
        decode(gzipped(gzipped(bytes(8 * MIB)) * 100), "gzip, gzip", MIB)


def test_a_zstd_window_beyond_the_limit_is_refused() -> None:
    params = zstandard.ZstdCompressionParameters(window_log=27)
    writer = zstandard.ZstdCompressor(compression_params=params).compressobj()
    data = writer.compress(PLAIN) + writer.flush()
    with pytest.raises(DecodingError, match="compressed"):
        decode(data, "zstd", MIB)
    assert decode(data, "zstd", 128 * MIB) == PLAIN


@table(("encoding", "encode"), CODECS)
def test_a_prefix_of_a_cut_off_body_is_decoded(encoding: str, encode: Encode) -> None:
    words = b"".join(b"%d " % n for n in range(100_000))
    data = encode(words)
    shown = decode_prefix(data[: len(data) // 2], encoding, MIB)
    assert len(shown) > len(words) // 10
    assert words.startswith(shown)


@table(("encoding", "encode"), [*CODECS, ("", bytes)])
def test_a_prefix_of_a_whole_body_is_the_body_up_to_the_limit(encoding: str, encode: Encode) -> None:
    assert decode_prefix(encode(PLAIN), encoding, MIB) == PLAIN
    assert decode_prefix(encode(PLAIN), encoding, 100) == PLAIN[:100]


def test_a_prefix_of_nothing_usable_is_empty() -> None:
    assert decode_prefix(b"not gzip", "gzip", MIB) == b""


def test_a_prefix_is_decoded_through_all_layers() -> None:
    data = brotlied(gzipped(PLAIN))
    assert decode_prefix(data, "gzip, br", MIB) == PLAIN


@given(
    st.binary(max_size=3000),
    st.sampled_from(["gzip", "deflate", "br", "zstd", "gzip, br"]),
    st.integers(0, 4000),
)
def test_garbage_raises_only_decoding_errors(data: bytes, encoding: str, limit: int) -> None:
    assert len(decode_prefix(data, encoding, limit)) <= limit
    with contextlib.suppress(DecodingError):
        assert len(decode(data, encoding, limit)) <= limit


@given(st.lists(st.binary(max_size=200), max_size=20), st.sampled_from(CODECS))
def test_encoded_bodies_are_decoded(parts: list[bytes], codec: tuple[str, Encode]) -> None:
    encoding, encode = codec
    data = b"".join(parts * 40)
    assert decode(encode(data), encoding, len(data)) == data
