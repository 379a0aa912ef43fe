"""HTTP/2 peers that flood, do not read, shut down, or cancel; and answers that are not HTTP."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from h2.errors import ErrorCodes
from h2.settings import SettingCodes
from hpack import Decoder, Encoder
from hyperframe.frame import (
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)
from hypothesis import given
from hypothesis import strategies as st
from mitmproxy import http
from mitmproxy.addons.next_layer import NextLayer
from mitmproxy.addons.proxyserver import Proxyserver
from mitmproxy.proxy.server import ConnectionHandler, ConnectionIO
from mitmproxy.test import taddons, tflow

from mitm_gateway.patches.patch import Gateway
from mitm_gateway.patches.safety import turns
from mitm_gateway.patches.safety.back_pressure import Reading
from support.layers import HOST, HTTP2_PREFACE, TUNNEL, Connection, connected
from support.patched import applied

UPSTREAM = (HOST, 443)
GET = b"GET / HTTP/1.1\r\nHost: upstream.test\r\n\r\n"
HEAD = ((":method", "GET"), (":scheme", "https"), (":authority", HOST), (":path", "/"))
POST = ((":method", "POST"), *HEAD[1:])
OK = ((":status", "200"), ("content-length", "2"))


@pytest.fixture
def patched(patched: taddons.context) -> taddons.context:
    """mitmproxy with the safety patches, streaming every body."""
    patched.options.stream_large_bodies = "1"
    return patched


def head(stream: int, fields: Any = OK, *, end: bool = False) -> HeadersFrame:
    frame = HeadersFrame(stream, data=Encoder().encode(fields))
    frame.flags |= {"END_HEADERS", *(["END_STREAM"] if end else [])}
    return frame


def data(stream: int, content: bytes = b"ok", *, end: bool = True) -> DataFrame:
    return DataFrame(stream, data=content, flags=["END_STREAM"] if end else [])


def goaway(last: int, code: ErrorCodes = ErrorCodes.NO_ERROR) -> GoAwayFrame:
    return GoAwayFrame(0, last_stream_id=last, error_code=code)


def contents(sent: bytes) -> bytes:
    """Return the contents of all DATA frames."""
    return b"".join(frame.data for frame in parsed(sent) if isinstance(frame, DataFrame))


def sent_bytes(*all_frames: Frame) -> bytes:
    return b"".join(frame.serialize() for frame in all_frames)


def parsed(got: bytes) -> list[Frame]:
    """Return the frames, behind the preface if there is one."""
    found, got = [], got.removeprefix(HTTP2_PREFACE)
    while got:
        frame, length = Frame.parse_frame_header(memoryview(got[:9]))
        frame.parse_body(memoryview(got[9 : 9 + length]))
        found.append(frame)
        got = got[9 + length :]
    return found


async def http2(
    patched: taddons.context, *frames: Frame, settings: dict[int, int] | None = None, **way: Any
) -> Connection:
    """Return the connection of a client that has sent these frames over HTTP/2."""
    begin = HTTP2_PREFACE + SettingsFrame(0, settings or {}).serialize()
    return await connected(patched, begin, sent_bytes(*frames), **TUNNEL, alpn=b"h2", **way)


async def answered(patched: taddons.context, *frames_of_answer: Frame, count: int = 1) -> Connection:
    """Return an HTTP/1 client's connection after requests to which an upstream over HTTP/2 answers so."""
    answer = sent_bytes(SettingsFrame(0), *frames_of_answer)
    return await connected(patched, *[GET] * count, **TUNNEL, upstream_alpn=b"h2", answer=answer)


# ---- upstreams ----


@pytest.mark.parametrize(
    "answer",
    [
        [goaway(1), head(1), data(1)],
        [goaway(2**31 - 1), head(1), data(1)],
        [head(1), data(1, b"o", end=False), goaway(1), data(1, b"k")],
        [goaway(2**31 - 1), head(1), goaway(1), data(1)],
    ],
)
async def test_a_response_that_an_upstream_has_begun_outlives_its_goaway(
    patched: taddons.context, answer: list[Frame]
) -> None:
    connection = await answered(patched, *answer, count=2)
    assert connection.got.count(b"HTTP/1.1 200 ") == 2
    assert connection.sent[UPSTREAM].count(HTTP2_PREFACE) == 2  # a connection for each request


async def test_an_upload_that_waits_for_room_outlives_a_goaway(patched: taddons.context) -> None:
    answer = sent_bytes(SettingsFrame(0, {SettingCodes.INITIAL_WINDOW_SIZE: 10}))
    connection = await http2(
        patched, head(1, POST), data(1, b"a" * 100, end=False), upstream_alpn=b"h2", answer=answer
    )
    await connection.receive(sent_bytes(data(1, b"b" * 50)))
    await connection.upstream_sends(sent_bytes(goaway(1), WindowUpdateFrame(1, window_increment=200)))
    assert contents(connection.sent[UPSTREAM]) == b"a" * 100 + b"b" * 50
    await connection.upstream_sends(sent_bytes(head(1), data(1)))
    assert contents(connection.got) == b"ok"


async def test_a_request_that_an_upstream_will_not_answer_is_502(patched: taddons.context) -> None:
    connection = await answered(patched, goaway(0))
    assert connection.got.startswith(b"HTTP/1.1 502 ")
    assert b"closed the connection" in connection.got


@pytest.mark.parametrize("code", [ErrorCodes.NO_ERROR, ErrorCodes.INTERNAL_ERROR])
async def test_requests_that_wait_for_an_upstreams_streams_end_with_its_goaway(
    patched: taddons.context, code: ErrorCodes
) -> None:
    # mitmproxy sends ten until it has the upstream's settings; the answers come when all have been received.
    answers = (frame for at in range(1, 20, 2) for frame in (head(at), data(at)))
    answer = sent_bytes(goaway(19, code), *answers)
    connection = await http2(
        patched, *(head(at, HEAD, end=True) for at in range(1, 25, 2)), upstream_alpn=b"h2", answer=answer
    )
    statuses = [frame.stream_id for frame in parsed(connection.got) if isinstance(frame, HeadersFrame)]
    assert sorted(statuses) == list(range(1, 25, 2))


async def test_requests_that_wait_for_an_upstreams_streams_get_their_secrets_when_they_are_sent() -> None:
    def outgoing(request: http.Request) -> http.Request | None:
        if "x-secret" in request.headers:  # no request of a flow
            return None
        copy = request.copy()
        copy.headers["x-secret"] = "s"
        return copy

    gateway = Gateway(body_limit=lambda flow: None, refuse=lambda flow, refusal: None, outgoing=outgoing)
    with applied("outgoing-head", gateway=gateway), taddons.context(Proxyserver(), NextLayer()) as context:
        context.options.http2_ping_keepalive = 0
        streams = range(1, 25, 2)
        connection = await http2(context, *(head(at, HEAD, end=True) for at in streams), upstream_alpn=b"h2")
        await connection.upstream_sends(SettingsFrame(0).serialize())
        for at in streams:
            await connection.upstream_sends(sent_bytes(head(at), data(at)))
    assert contents(connection.got) == b"ok" * len(streams)
    decoder, frames = Decoder(), parsed(connection.sent[UPSTREAM])
    heads = [decoder.decode(each.data) for each in frames if isinstance(each, HeadersFrame)]
    assert ["x-secret" in map(str, dict(fields)) for fields in heads] == [True] * len(streams)


async def test_an_upstream_may_take_room_back(patched: taddons.context) -> None:
    settings = SettingsFrame(0, {SettingCodes.INITIAL_WINDOW_SIZE: 10})  # 90 bytes less than it has received
    answer = sent_bytes(settings, WindowUpdateFrame(1, window_increment=60))
    connection = await http2(
        patched, head(1, POST), data(1, b"a" * 100, end=False), upstream_alpn=b"h2", answer=answer
    )
    await connection.receive(sent_bytes(data(1, b"b" * 50, end=True)))
    assert contents(connection.sent[UPSTREAM]) == b"a" * 100
    for at in (3, 5):
        await connection.receive(sent_bytes(head(at, HEAD, end=True)))
    assert contents(connection.sent[UPSTREAM]) == b"a" * 100 + b"b" * 50


async def test_an_upstream_that_cancels_is_an_error_of_the_upstream(patched: taddons.context) -> None:
    cancel = RstStreamFrame(1, error_code=ErrorCodes.CANCEL)
    connection = await http2(
        patched, head(1, HEAD, end=True), upstream_alpn=b"h2", answer=sent_bytes(SettingsFrame(0), cancel)
    )
    assert b"the upstream reset the request" in contents(connection.got)


@pytest.mark.parametrize("status", ["99", "0", "-200", "1000", "12345"])
async def test_an_invalid_status_is_502(patched: taddons.context, status: str) -> None:
    connection = await answered(patched, head(1, ((":status", status),)), data(1))
    assert connection.got.startswith(b"HTTP/1.1 502 ")


@pytest.mark.parametrize("chunk", [b"1\r\na\r\n", b"1;x\r\na\r\n"])
async def test_many_chunks_that_arrive_together_are_joined(patched: taddons.context, chunk: bytes) -> None:
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk * 1000 + b"0\r\n\r\n"
    connection = await connected(patched, GET, **TUNNEL, answer=answer)
    assert connection.got.endswith(b"\r\n1\r\na" * 62 + b"\r\n3a8\r\n" + b"a" * 936 + b"\r\n0\r\n\r\n")


# ---- floods ----


@given(st.lists(st.binary(max_size=40), max_size=100), st.integers(1, 50))
def test_received_data_is_divided_between_frames_however_it_arrives(contents: list[bytes], cut: int) -> None:
    whole = HTTP2_PREFACE + b"".join(data(1, each, end=False).serialize() for each in contents)
    divided, passed = turns._Frames(len(HTTP2_PREFACE)), b""
    for place in range(0, len(whole), cut):
        for piece in divided.divide(whole[place : place + cut]):
            passed += piece
    assert passed + divided._held == whole
    pieces = list(turns._Frames(len(HTTP2_PREFACE)).divide(whole))
    assert [len(parsed(piece)) for piece in pieces[:-1]] == [16] * (len(pieces) - 1)


async def test_the_others_have_their_turn_between_the_frames_of_a_flood(patched: taddons.context) -> None:
    connection = await http2(patched, *[PingFrame(0, b"12345678")] * 3200)
    assert connection.turns == 199
    assert sum(isinstance(frame, PingFrame) for frame in parsed(connection.got)) == 3200


async def test_frames_of_a_client_that_has_left_are_dropped(patched: taddons.context) -> None:
    connection = await http2(patched)
    connection.at_turn = {1: connection.close}
    await connection.receive(sent_bytes(*(head(at, HEAD, end=True) for at in range(1, 201, 2))))
    assert 0 < len({flow.id for flow in connection.flows}) <= 16
    assert not any(flow.live for flow in connection.flows)
    assert not turns.has_waiting_data(connection.client)


async def test_no_more_is_received_while_frames_wait() -> None:
    client = tflow.tclient_conn()

    class Handler(ConnectionHandler):
        def __init__(self) -> None:
            self._drain_lock = asyncio.Lock()
            self.transports = {client: ConnectionIO()}

        async def handle_hook(self, hook: Any) -> None:
            raise AssertionError

    with applied("http2-turns"):
        client.__dict__[turns._WAITING] = True
        draining = asyncio.ensure_future(Handler().drain_writers())  # type: ignore[no-untyped-call]
        await asyncio.sleep(0)
        assert not draining.done()
        client.__dict__.pop(turns._WAITING)
        await draining


# ---- clients that do not read ----


async def test_frames_have_the_usual_size_whatever_a_client_allows(patched: taddons.context) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n" + b"a" * 60000
    connection = await http2(
        patched, head(1, HEAD, end=True), settings={SettingCodes.MAX_FRAME_SIZE: (1 << 24) - 1}, answer=answer
    )
    sizes = [len(frame.data) for frame in parsed(connection.got) if isinstance(frame, DataFrame)]
    assert sum(sizes) == 60000
    assert max(sizes) == 16 << 10


async def test_small_pieces_that_wait_are_joined_and_dropped_at_the_end(patched: taddons.context) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 9000\r\n\r\n" + b"a" * 9000
    connection = await http2(
        patched,
        head(1, HEAD, end=True),
        settings={SettingCodes.INITIAL_WINDOW_SIZE: 0},
        answer=answer,
        cut=10,
    )
    buffers = connection.http2.stream_buffers
    sizes = [len(frame.data) for frame in buffers[1]]
    assert (len(sizes), sum(sizes)) == (65, 9000)
    window = WindowUpdateFrame(1, window_increment=4000)
    await connection.receive(sent_bytes(window, window))
    assert len(contents(connection.got)) == 8000
    await connection.close()
    assert not buffers


# ---- back-pressure ----

STREAMED = b"a" * (9 << 18)  # more than half of the window
PIECES = [STREAMED[:16384]] * (len(STREAMED) // 16384)
NO_ROOM: dict[int, int] = {SettingCodes.INITIAL_WINDOW_SIZE: 0}


def room(stream: int) -> WindowUpdateFrame:
    return WindowUpdateFrame(stream, window_increment=len(STREAMED))


ROOM = sent_bytes(room(0), room(1))


class Transport(SimpleNamespace):
    """A transport whose reading pauses, and to which `unsent` bytes wait to be written."""

    unsent, is_reading = 0, True

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def pause_reading(self) -> None:
        self.is_reading = False

    def resume_reading(self) -> None:
        self.is_reading = True


def acknowledged(sent: bytes) -> set[int]:
    """Return the streams of which received data was acknowledged."""
    return {frame.stream_id for frame in parsed(sent) if isinstance(frame, WindowUpdateFrame)} - {0}


async def test_an_http2_upstream_waits_on_a_stream_that_is_not_read(patched: taddons.context) -> None:
    connection = await http2(
        patched,
        *(head(at, HEAD, end=True) for at in (1, 3)),
        settings=NO_ROOM,
        upstream_alpn=b"h2",
        answer=SettingsFrame(0).serialize(),
    )
    await connection.receive(sent_bytes(*(room(at) for at in (0, 3))))
    for at in (1, 3):
        await connection.upstream_sends(head(at, OK[:1]).serialize())
        for piece in PIECES:
            await connection.upstream_sends(data(at, piece, end=False).serialize())
    assert acknowledged(connection.sent[UPSTREAM]) == {3}
    assert contents(connection.got) == STREAMED
    await connection.receive(ROOM)
    assert acknowledged(connection.sent[UPSTREAM]) == {1, 3}
    assert contents(connection.got) == STREAMED * 2


@pytest.mark.parametrize("end", [ROOM, RstStreamFrame(1).serialize()], ids=["reads", "cancels"])
async def test_an_http1_upstream_waits_for_a_client(patched: taddons.context, end: bytes) -> None:
    connection = await http2(patched, head(1, HEAD, end=True), settings=NO_ROOM)
    transport, slots = Transport(), asyncio.Semaphore(0)
    vars(connection.flows[0].server_conn)["gateway_reading"] = Reading(transport, slots)
    await connection.upstream_sends(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(STREAMED))
    for piece in PIECES[:32]:
        assert transport.is_reading
        await connection.upstream_sends(piece)
    await connection.upstream_sends(PIECES[0])
    assert not transport.is_reading
    assert not slots.locked()  # another request has its place
    transport.resume_reading()  # as asyncio does
    assert not transport.is_reading
    for piece in PIECES[33:]:
        await connection.upstream_sends(piece)
    await connection.receive(end)
    assert transport.is_reading
    assert contents(connection.got) == (STREAMED if end is ROOM else b"")


async def test_an_http2_client_waits_for_an_http2_upstream(patched: taddons.context) -> None:
    answer = SettingsFrame(0, NO_ROOM).serialize()
    connection = await http2(patched, head(1, POST), upstream_alpn=b"h2", answer=answer)
    for piece in PIECES:
        await connection.receive(data(1, piece, end=False).serialize())
    assert not acknowledged(connection.got)
    await connection.upstream_sends(ROOM)
    assert acknowledged(connection.got) == {1}
    assert contents(connection.sent[UPSTREAM]) == STREAMED


@pytest.mark.parametrize("end", [ROOM, goaway(0).serialize()], ids=["reads", "ends"])
async def test_an_http1_client_waits_for_an_http2_upstream(patched: taddons.context, end: bytes) -> None:
    answer = SettingsFrame(0, NO_ROOM).serialize()
    connection = await connected(patched, **TUNNEL, upstream_alpn=b"h2", answer=answer)
    transport = Transport()
    vars(connection.client)["gateway_reading"] = Reading(transport, None)
    length = b"Content-Length: %d\r\n\r\n" % len(STREAMED)
    await connection.receive(GET.replace(b"GET", b"POST").removesuffix(b"\r\n") + length)
    for piece in PIECES[:-1]:
        await connection.receive(piece)
    assert not transport.is_reading
    await connection.upstream_sends(end)
    assert transport.is_reading


def test_an_upstream_that_has_not_read_its_request_is_read() -> None:
    # It may have to write its response before it reads on.
    reading = Reading(transport := Transport(unsent=1), None)
    reading.hold()
    assert transport.is_reading
    transport.unsent = 0
    reading.hold()
    transport.unsent = 1
    reading.give_way()
    assert transport.is_reading
