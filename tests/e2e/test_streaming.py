"""Responses that stream through a real mitmdump, and the copies that are kept of them."""

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
