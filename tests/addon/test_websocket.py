"""WebSockets in mitmproxy's own layers: every message passes, few are kept, and an ended socket is recorded."""

from __future__ import annotations

import json

import pytest
from mitmproxy.http import HTTPFlow

from support.layers import Connection, Gateway

HOST = "socket.test"
ASKED = (
    f"GET /v1/realtime HTTP/1.1\r\nHost: {HOST}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
).encode()
SWITCH = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
)
COUNTS = json.dumps(
    {"type": "response.done", "response": {"usage": {"input_tokens": 3, "output_tokens": 4}}}
).encode()
CLOSE = b"\x88\x02\x03\xe8"


def frame(content: bytes, *, is_masked: bool = False, opcode: int = 1) -> bytes:
    size = bytes([len(content)]) if len(content) < 126 else b"\x7e" + len(content).to_bytes(2, "big")
    if is_masked:  # by zeros, which change nothing
        return bytes([0x80 | opcode, size[0] | 0x80]) + size[1:] + b"\0\0\0\0" + content
    return bytes([0x80 | opcode]) + size + content


def talk(gateway: Gateway, sent: bytes, answered: bytes = b"") -> tuple[Connection, HTTPFlow]:
    """Open a socket and exchange these frames; the client ends it."""
    connection = gateway.exchange(ASKED + sent, SWITCH + answered, 1 << 20, target=(HOST, 443), sni=HOST)
    flow = connection.flows[-1]
    assert flow.websocket is not None
    return connection, flow


@pytest.mark.parametrize("is_passing", [False, True])
def test_every_message_passes_and_a_bounded_number_is_kept(gateway: Gateway, is_passing: bool) -> None:
    gateway.set(gateway_capture="16KiB")
    frames = b"".join(frame(b"%04d" % number + b"x" * 1000) for number in range(100))
    if is_passing:
        asked = ASKED.replace(b"/v1/realtime", b"http://passing.test/x").replace(
            HOST.encode(), b"passing.test"
        )
        connection = gateway.exchange(asked, SWITCH + frames, 1 << 20)
    else:
        connection, _ = talk(gateway, b"", frames)
    assert all(b"%04dxxx" % number in connection.got for number in range(100))
    socket = connection.flows[-1].websocket
    assert socket is not None
    kept = [message.content[:4] for message in socket.messages]
    assert kept == [b"%04d" % number for number in range(100 - len(kept), 100)]
    assert 4 < len(kept) < 16


def test_a_message_larger_than_the_bound_is_cut_in_the_copy_only(gateway: Gateway) -> None:
    gateway.set(gateway_capture="1KiB")
    content = b"x" * 5000
    connection, flow = talk(gateway, b"", frame(content))
    assert content in connection.got
    assert flow.websocket is not None
    assert [len(message.content) for message in flow.websocket.messages] == [1024]


def test_an_ended_socket_is_recorded_with_its_tokens_and_forgotten(gateway: Gateway) -> None:
    answered = frame(COUNTS) + frame(COUNTS) + CLOSE
    _, flow = talk(gateway, frame(b"hello", is_masked=True), answered)
    assert gateway.under_way == 0
    assert flow.comment.startswith("6→8, head: ")
    facts = flow.metadata["gateway"]
    assert (facts["status"], facts["outcome"], facts["bytes_out"]) == (101, "ok", 5)
    assert facts["bytes_in"] == 2 * len(COUNTS)


def test_a_socket_whose_client_vanishes_is_recorded_so(gateway: Gateway) -> None:
    _, flow = talk(gateway, frame(b"hello", is_masked=True))
    assert gateway.under_way == 0
    assert flow.metadata["gateway"]["outcome"] == "client_left"
