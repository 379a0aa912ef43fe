"""WebSockets in mitmproxy's own layers: every message passes, few are kept, and an ended socket is recorded."""

import json
import tracemalloc
import zlib

import pytest
from mitmproxy.http import HTTPFlow
from mitmproxy.proxy.layers.websocket import WebsocketConnection
from mitmproxy.test.tflow import tclient_conn
from wsproto.connection import Connection as WebSocket
from wsproto.connection import ConnectionType
from wsproto.events import BytesMessage, Event, Ping, TextMessage

from mitm_gateway.patches.safety import websockets
from support.constants import GW
from support.layers import SOCKET, SOCKET_HOST, UPSTREAM, WAYS, Connection, Gateway
from support.patched import applied

ASKED = (
    f"GET /v1/realtime HTTP/1.1\r\nHost: {SOCKET_HOST}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
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
    connection = gateway.exchange(ASKED + sent, SWITCH + answered, way=SOCKET)
    flow = connection.flows[-1]
    assert flow.websocket is not None
    return connection, flow


def answer(gateway: Gateway, data: bytes, *, is_passing: bool) -> Connection:
    """Let the upstream switch protocols and send frames, for a host with rules or for one without."""
    if not is_passing:
        return talk(gateway, b"", data)[0]
    asked = ASKED.replace(b"/v1/realtime", b"http://passing.test/x").replace(
        SOCKET_HOST.encode(), b"passing.test"
    )
    return gateway.exchange(asked, SWITCH + data, way=WAYS["plain"])


@pytest.mark.parametrize("is_passing", [False, True])
def test_every_message_passes_and_a_bounded_number_is_kept(gateway: Gateway, is_passing: bool) -> None:
    gateway.set(gateway_capture="16KiB")
    frames = b"".join(frame(b"%04d" % number + b"x" * 1000) for number in range(100))
    connection = answer(gateway, frames, is_passing=is_passing)
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


def test_a_socket_whose_client_vanishes_is_recorded_as_such(gateway: Gateway) -> None:
    _, flow = talk(gateway, frame(b"hello", is_masked=True))
    assert gateway.under_way == 0
    assert flow.metadata["gateway"]["outcome"] == "client_left"


OWN = "own-key-of-the-client"
TOO_BIG = b"\x03\xf1"  # 1009
DEFLATE = b"Sec-WebSocket-Extensions: permessage-deflate\r\n"
LIMIT = 100_000


def read_by_upstream(connection: Connection) -> list[Event]:
    """Return the frames that the upstream received."""
    upstream = WebSocket(ConnectionType.SERVER)
    upstream.receive_data(connection.sent[UPSTREAM].partition(b"\r\n\r\n")[2])
    return list(upstream.events())


def with_deflate(head: bytes) -> bytes:
    return head.removesuffix(b"\r\n") + DEFLATE + b"\r\n"


HALF = b"\xfe" + (LIMIT // 2 + 1).to_bytes(2, "big") + b"\0" * 4 + b"x" * (LIMIT // 2 + 1)
WHOLE = b"\x82\xff" + (LIMIT + 1).to_bytes(8, "big") + b"\0" * 4 + b"x" * (LIMIT + 1)


@pytest.mark.parametrize("large", [WHOLE, b"\x02" + HALF + b"\x80" + HALF], ids=["a frame", "two fragments"])
def test_a_message_over_the_bound_ends_the_socket_and_is_not_forwarded(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, large: bytes
) -> None:
    monkeypatch.setattr(websockets, "MAX_MESSAGE_BYTES", LIMIT)
    fits = frame(b"f" * 60_000, is_masked=True)
    connection, flow = talk(gateway, fits + large)
    received = read_by_upstream(connection)
    assert b"".join(event.data for event in received if isinstance(event, BytesMessage)) == b""
    assert "".join(event.data for event in received if isinstance(event, TextMessage)) == "f" * 60_000
    assert TOO_BIG in connection.got
    assert flow.websocket is not None
    assert (flow.websocket.close_code, gateway.under_way) == (1009, 0)


def test_a_message_that_unpacks_to_too_much_ends_the_socket(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(websockets, "MAX_MESSAGE_BYTES", 2 << 20)
    packer = zlib.compressobj(wbits=-15)
    bomb = (packer.compress(b"\0" * (40 << 20)) + packer.flush(zlib.Z_SYNC_FLUSH)).removesuffix(
        b"\0\0\xff\xff"
    )
    sent = b"\xc2\xfe" + len(bomb).to_bytes(2, "big") + b"\0\0\0\0" + bomb
    tracemalloc.start()
    connection = gateway.exchange(with_deflate(ASKED) + sent, with_deflate(SWITCH), way=SOCKET)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert TOO_BIG in connection.got
    assert peak < 12 << 20


def test_the_others_have_their_turn_between_frames_and_the_order_stays(gateway: Gateway) -> None:
    pings = b"".join(frame(b"%05d" % number, is_masked=True, opcode=9) for number in range(2000))
    connection, _ = talk(gateway, pings + frame(b"last", is_masked=True))
    *received, last = read_by_upstream(connection)[:2001]
    assert [int(event.payload) for event in received if isinstance(event, Ping)] == list(range(2000))
    assert isinstance(last, TextMessage)
    assert connection.turns >= 2000 // 256


def test_few_fragments_stay_as_they_are(gateway: Gateway) -> None:
    connection, _ = talk(gateway, b"\x02\x83\0\0\0\0foo" + b"\x80\x83\0\0\0\0bar")
    received = [event.data for event in read_by_upstream(connection) if isinstance(event, BytesMessage)]
    assert received == [b"foo", b"bar"]


def test_many_short_fragments_are_joined(gateway: Gateway) -> None:
    many = b"\x02\x81\0\0\0\0a" + b"\x00\x81\0\0\0\0a" * 9_998 + b"\x80\x81\0\0\0\0a"
    connection, flow = talk(gateway, many)
    assert flow.websocket is not None
    assert flow.websocket.messages[0].content == b"a" * 10_000
    assert len(read_by_upstream(connection)) < 100


def test_a_message_grows_in_place() -> None:
    socket = WebsocketConnection(ConnectionType.SERVER, conn=tclient_conn())
    with applied("websocket-bounds"):
        buffers = set()
        for data in (b"\x02\xff" + (300_000).to_bytes(8, "big") + b"\0" * 4, *[b"x" * 1000] * 200):
            socket.receive_data(data)
            for event in socket.events():
                socket.frame_buf[-1] += event.data
            buffers.add(id(socket.frame_buf[-1]))
    assert len(socket.frame_buf[0]) == 200_000
    assert len(buffers) <= 2


@pytest.mark.parametrize("is_passing", [False, True])
def test_the_reason_for_a_close_is_kept_on_one_line_and_without_a_key(
    gateway: Gateway, is_passing: bool
) -> None:
    key = OWN if is_passing else GW
    reason = f"no \x1b[2J\u202e\n[00:00] forged {key}".encode()
    close = frame(b"\x03\xe8" + reason, opcode=8)
    connection = answer(gateway, close, is_passing=is_passing)
    assert reason in connection.got
    socket = connection.flows[-1].websocket
    assert socket is not None
    assert socket.close_reason is not None
    assert socket.close_reason.isprintable()
    assert (key in socket.close_reason) == is_passing
