"""Large bodies of known length are received into one block."""

import asyncio
import resource
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mitmproxy.addons.next_layer import NextLayer
from mitmproxy.addons.proxyserver import Proxyserver
from mitmproxy.test import taddons

from mitm_gateway.patches.speed import bodies
from support.layers import ANSWER, Connection
from support.patched import applied

UPSTREAM = ("upstream.test", 80)


def sent(body: bytes, framing: str, cuts: list[int]) -> bytes:
    """Return what the upstream receives of a body that arrives in these pieces."""

    async def send() -> bytes:
        with taddons.context(NextLayer(), Proxyserver()) as gateway:
            connection = Connection(gateway, target=UPSTREAM, upstream_tls=False, answer=ANSWER)
            await connection.start()
            await connection.receive(f"POST / HTTP/1.1\r\nHost: upstream.test\r\n{framing}\r\n\r\n".encode())
            for start, end in pairwise([0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]):
                await connection.receive(body[start:end])
            return connection.sent[UPSTREAM]

    return asyncio.run(send())


@settings(max_examples=20)
@given(body=st.binary(min_size=1, max_size=60), cuts=st.lists(st.integers(0, 60), max_size=6))
def test_a_body_in_a_block_is_the_same_body(body: bytes, cuts: list[int]) -> None:
    length, chunked = f"Content-Length: {len(body)}", "Transfer-Encoding: chunked"
    chunks = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    expected = sent(body, length, cuts), sent(chunks, chunked, cuts)
    with pytest.MonkeyPatch.context() as patched, applied("whole-bodies"):
        patched.setattr(bodies, "LARGE_BYTES", 8)
        assert (sent(body, length, cuts), sent(chunks, chunked, cuts)) == expected
    assert expected[0].endswith(body)


def test_a_large_body_of_known_length_is_received_into_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    block = bodies.Block

    def noted(size: int, begun: bytes) -> bodies.Block:
        made.append(size)
        return block(size, begun)

    with applied("whole-bodies"):
        monkeypatch.setattr(bodies, "Block", noted)
        body = b"b" * (bodies.LARGE_BYTES + 9)
        for framing in (f"Content-Length: {len(body)}", "Transfer-Encoding: chunked"):
            data = body if "Length" in framing else b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
            assert sent(data, framing, [bodies.LARGE_BYTES, bodies.LARGE_BYTES + 4]).count(b"b" * 1000)
    assert made == [len(body)]


def test_a_body_is_its_block() -> None:
    block = bodies.Block(6, b"abc")
    block += b"def"
    assert len(block) == 6
    body = bytes(block)
    assert bytes(block) is body
    block.clear()
    assert not block
    assert body == b"abcdef"


def test_a_body_that_ends_early_has_what_has_arrived() -> None:
    assert bytes(bodies.Block(6, b"abc")) == b"abc"


def test_an_announced_body_takes_no_memory_before_it_arrives() -> None:
    page = resource.getpagesize()
    before = int(Path("/proc/self/statm").read_text().split()[1]) * page
    blocks = [bodies.Block(bodies.MOST_BYTES, b"a") for _ in range(8)]
    after = int(Path("/proc/self/statm").read_text().split()[1]) * page
    assert after - before < bodies.MOST_BYTES
    assert all(len(block) == 1 for block in blocks)
