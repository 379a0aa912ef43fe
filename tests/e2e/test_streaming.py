"""Responses that stream through a real mitmdump, and the copies that are kept of them."""

import socket
from pathlib import Path

import pytest

from support.answers import Stream, message_events
from support.certificates import Authority
from support.constants import API, CK, ENV, GW, HEADERS
from support.fixture_types import StartGateway, StartMitmdump, StartRecorder
from support.http_client import Http2Client, Wire, pseudo_headers
from support.one_rule import MODELS, post, recorded_flow, rules

pytestmark = pytest.mark.e2e


def test_http2_clients_get_events_one_by_one(
    recorder: StartRecorder, mitmdump: StartMitmdump, authority: Authority
) -> None:
    events = message_events("gw-large")
    upstream = recorder(Stream(events), tls=authority, names=["gw.test"], http2=True)
    text = rules(upstream.url, MODELS).replace(upstream.url, "https://gw.test")
    proxy = mitmdump(rules=text, names={"gw.test": upstream.port}, trust=authority.ca_file, env=ENV)
    with Wire.through(proxy.port, f"{API}:443", proxy.ca_cert, alpn=["h2"]) as wire:
        client = Http2Client(wire)
        head = [*pseudo_headers(API), ("x-api-key", CK)]
        stream = client.send_request(head, b'{"model":"claude-opus-4"}')
        for number, expected in enumerate(events):
            if number:
                upstream.release()
            assert client.read_chunk(stream, number) == expected.replace(b"gw-large", b"claude-opus-4")
    assert upstream.connections[0].alpn == "h2"
    asked = upstream.requests[0]
    assert (asked.header(":authority"), asked.header("host")) == ("gw.test", None)
    assert (asked.body, asked.values("authorization")) == (b'{"model":"gw-large"}', [f"Bearer {GW}"])


def test_a_long_answer_is_kept_as_its_client_got_it_up_to_the_limit(
    gateway: StartGateway, tmp_path: Path
) -> None:
    file = tmp_path / "flows"
    events = Stream(message_events("gw-large", ["word "] * 50), gated=False)
    _, proxy = gateway(events, MODELS, "-w", str(file), "--set", "gateway_capture=2KiB")
    answer = post(proxy, b'{"model":"claude-opus-4"}')
    assert answer.body.count(b"word ") == 50
    proxy.stop()
    flow = recorded_flow(file)
    assert flow.response is not None
    assert flow.response.raw_content == answer.body[:2048]
    assert "the rest is not kept" in flow.comment


def test_received_parts_are_kept_when_the_client_hangs_up(gateway: StartGateway, tmp_path: Path) -> None:
    events = message_events()
    file = tmp_path / "flows"
    upstream, proxy = gateway(Stream(events), "", "-w", str(file))
    with Wire(proxy.port) as client:
        client.send_request("POST", "/v1/messages", HEADERS, b"{}")
        client.read_head()
        client.read_chunk()
    upstream.wait_for_hangup()
    proxy.stop()
    flow = recorded_flow(file)
    assert flow.response is not None
    assert flow.response.raw_content == events[0]


def receive_until(peer: socket.socket, end: bytes) -> bytes:
    peer.settimeout(20)
    received = b""
    while end not in received:
        received += peer.recv(4096) or end
    return received


@pytest.mark.parametrize("content_type", ["application/grpc+proto", "application/vnd.amazon.eventstream"])
def test_peers_talk_in_turns_where_a_rule_does_not_read_the_body(
    mitmdump: StartMitmdump, tmp_path: Path, content_type: str
) -> None:
    file, head = tmp_path / "flows", [*pseudo_headers("localhost", scheme="http"), ("x-api-key", CK)]
    with socket.create_server(("127.0.0.1", 0)) as server:
        text = rules(f"http://127.0.0.1:{server.getsockname()[1]}")
        proxy = mitmdump("-w", str(file), rules=text, modes=[f"reverse:https://{API}"], env=ENV)
        with Wire(proxy.port) as wire:
            client = Http2Client(wire)
            call = client.open_request([*head, ("content-type", content_type)])
            client.send_data(call, b"question")
            upstream, _ = server.accept()
            with upstream:
                received = receive_until(upstream, b"question")
                upstream.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nanswer\r\n")
                assert client.read_chunk(call, 0) == b"answer"
                client.send_data(call, b"again")
                client.end_request(call, [("authorization", CK)])
                received += receive_until(upstream, b"0\r\n\r\n")
                upstream.sendall(b"3\r\nend\r\n0\r\n\r\n")
                assert client.read_response(call).body == b"answerend"
    assert f"Bearer {GW}".encode() in received
    assert CK.encode() not in received
    proxy.stop()
    assert recorded_flow(file).request.raw_content == b"questionagain"
