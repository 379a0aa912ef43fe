"""Acceptance cases 44 to 49: hostile bodies."""

import contextlib
import gzip
import zlib

import pytest

from support.answers import Bytes, Hang, Stream
from support.constants import API, CK
from support.fixture_types import StartStage
from support.process_figures import peak_mb
from support.security_stage import API_HEADERS, BODY, Stage
from support.table import table

pytestmark = pytest.mark.e2e

GZIP = ("Content-Encoding", "gzip")


def test_44_a_bomb_is_413_while_others_go_on(stage_with: StartStage) -> None:
    stage = stage_with()
    assert stage.ask().status == 200
    press = zlib.compressobj(1, zlib.DEFLATED, 31)
    bomb = press.compress(b'{"model":"')
    bomb += b"".join(press.compress(b"a" * (1 << 20)) for _ in range(200)) + press.flush()
    before, client = peak_mb(stage.proxy.process.pid), stage.tunnel()
    client.send_request("POST", "/v1/messages", [*API_HEADERS, GZIP, ("Content-Length", str(len(bomb)))])
    client.send(bomb[:-1])
    assert stage.ask_anyway().status == 200
    client.send(bomb[-1:])
    assert client.read_response().status == 413
    assert stage.ask_anyway().status == 200
    assert peak_mb(stage.proxy.process.pid) - before < 100


def test_44_a_bomb_in_a_bomb_is_refused(stage: Stage) -> None:
    bomb = gzip.compress(gzip.compress(b"a" * (80 << 20), 1))
    stage.assert_refused(
        stage.ask(headers=[*API_HEADERS, ("Content-Encoding", "gzip, gzip")], body=bomb), 413
    )


@table("body", [b'{"model":"claude-x","model":"other"}', b'{"model":"a","\\u006dodel":"claude-x"}'])
def test_45_two_model_keys_are_400(stage: Stage, body: bytes) -> None:
    stage.assert_refused(stage.ask(body=body), 400)


def test_46_an_escaped_key_is_the_key(stage: Stage) -> None:
    assert stage.ask(body=b'{"\\u006dodel":"claude-x","other":1.0}').status == 200
    assert stage.asked.body == b'{"\\u006dodel":"gw-model","other":1.0}'


# tests/behaviour/cases.py tries every way in which a body cannot be read.
@table("body", [b"model=claude-x", b'{"model":"claude-x"} {}', b'{"model":7}', b'{"model":["claude-x"]}'])
def test_47_an_unreadable_body_is_400(stage: Stage, body: bytes) -> None:
    stage.assert_refused(stage.ask(body=body), 400)


@table("encoding", ["gzip", "br", "zstd", "deflate", "snappy", "gzip, snappy"])
def test_47_a_body_that_contradicts_its_encoding_is_400(stage: Stage, encoding: str) -> None:
    stage.assert_refused(
        stage.ask(headers=[*API_HEADERS, ("Content-Encoding", encoding)], body=b"\x00no" * 9), 400
    )


@table("method", ["GET", "POST", "HEAD"])
def test_47_requests_without_a_body_are_forwarded(stage: Stage, method: str) -> None:
    assert stage.ask(body=b"", method=method).status == 200


def test_48_a_huge_body_is_refused_in_bounded_memory(stage_with: StartStage) -> None:
    stage = stage_with("--set", "gateway_body_limit=16MiB")
    assert stage.ask().status == 200
    before, piece = peak_mb(stage.proxy.process.pid), b"a" * (1 << 20)
    for target, status in (("/v1/messages", 413), ("/v1/../x", 400)):
        for is_chunked in (False, True):
            stage.warmed_up()
            client = stage.tunnel()
            framing = ("Transfer-Encoding", "chunked") if is_chunked else ("Content-Length", str(100 << 20))
            client.send_request("POST", target, [("Host", API), ("x-api-key", CK), framing])
            with contextlib.suppress(ConnectionError):
                for _ in range(100):
                    client.send(b"%x\r\n%s\r\n" % (len(piece), piece) if is_chunked else piece)
                client.send(b"0\r\n\r\n" if is_chunked else b"")
            stage.assert_refused(client.read_response(), status)
    assert peak_mb(stage.proxy.process.pid) - before < 80


def test_48_a_slow_body_delays_no_other_client(stage: Stage) -> None:
    client = stage.tunnel()
    client.send_request("POST", "/v1/messages", [*API_HEADERS, ("Content-Length", str(len(BODY)))])
    for place in range(len(BODY)):
        client.send(BODY[place : place + 1])
        assert stage.ask_anyway().status == 200
    assert client.read_response().status == 200


def test_49_a_giant_event_streams_through_in_bounded_memory(stage_with: StartStage) -> None:
    # This dumper prints all that is kept, which takes more memory than the event; so little is kept.
    stage = stage_with("--set", "gateway_capture=64KiB")
    assert stage.ask().status == 200
    piece, before = b"a" * (1 << 20), peak_mb(stage.proxy.process.pid)

    stage.gw.script = Stream((b'data: {"type":"x","model":"gw-model","t":"', *[piece] * 50, b'"}\n\n'))
    client = stage.tunnel()
    client.send_request("POST", "/v1/messages", API_HEADERS, b'{"model":"claude-x","stream":true}')
    client.read_head()
    assert client.read_chunk()  # while the upstream has sent no more
    stage.gw.release(51)
    size = 0
    while chunk := client.read_chunk():
        size += len(chunk)
    client.tape.clear()
    assert size > 50 << 20
    assert peak_mb(stage.proxy.process.pid) - before < 40


HEAD_WITHOUT_END = b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nx-a: " + b"a" * (1 << 20)


def test_a_head_without_end_ends_the_connection(stage: Stage) -> None:
    client = stage.reverse()
    with contextlib.suppress(ConnectionError):
        client.send(HEAD_WITHOUT_END + b"a" * (1 << 20))
    stage.assert_refused(client.read_response(), 431)


@table("end", [b"1;", b"0\r\n"])
def test_a_chunked_body_without_end_ends_the_connection(stage: Stage, end: bytes) -> None:
    client = stage.reverse()
    client.send_request(
        "POST", "/v1/messages", [("Host", "localhost"), ("Transfer-Encoding", "chunked")], end
    )
    with contextlib.suppress(ConnectionError):
        for _ in range(400):
            client.send(b"a" * 65536)
        stage.assert_ends(client)
        pytest.fail("the connection accepted 25 MB without a response")
    stage.assert_silence()


def test_too_much_data_sent_ahead_ends_the_connection(stage: Stage) -> None:
    stage.gw.script = Hang()
    client, seen = stage.tunnel(), len(stage.gw.requests)
    client.send_request("POST", "/v1/messages", API_HEADERS, BODY)
    stage.gw.wait_for_request(count=seen + 1)
    before = peak_mb(stage.proxy.process.pid)
    with contextlib.suppress(OSError):
        for _ in range(1000):
            client.send(b"GET /v1/models HTTP/1.1\r\n" + b"x: y\r\n" * 10_000)
        pytest.fail("the connection took 60 MB ahead")
    assert peak_mb(stage.proxy.process.pid) - before < 40


def test_a_response_with_an_endless_head_is_502(stage: Stage) -> None:
    stage.gw.script = Bytes(b"HTTP/1.1 200 OK\r\nx-a: " + b"a" * (3 << 20))
    answer = stage.ask()
    assert answer.status == 502
    assert answer.body.startswith(b'{"type": "error"')


@table("item", [b"[],", b'{"a":[]},', b'"ab",'])
def test_a_bomb_of_structure_is_413_before_it_is_built(stage: Stage, item: bytes) -> None:
    unpacked = b'{"model":"claude-x","a":{"b":[' + item * (30_000_000 // len(item)) + b"0]}}"
    before = peak_mb(stage.proxy.process.pid)
    answer = stage.ask(headers=[*API_HEADERS, ("Content-Encoding", "gzip")], body=gzip.compress(unpacked, 1))
    stage.assert_refused(answer, 413)
    assert peak_mb(stage.proxy.process.pid) - before < 6 * len(unpacked) / 2**20


def test_a_head_as_large_as_servers_take_passes(stage: Stage) -> None:
    large = ("x-large", "a" * 100_000)
    assert stage.ask(headers=[*API_HEADERS, large]).status == 200
    assert stage.asked.header("x-large") == large[1]
