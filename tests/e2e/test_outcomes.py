"""The outcome of a request in `gateway_log`: whole, refused, failed, or cut short by one of the three that can."""

import json
from typing import Any

import pytest
from mitmproxy.options import Options

from support.answers import Answer, Bytes, Close, Hang, Reply, Stream, json_reply, message, message_events
from support.constants import HEADERS
from support.one_gateway import StartGateway
from support.processes import Mitmdump
from support.waiting import wait_until
from support.wire import Wire

pytestmark = pytest.mark.e2e

LOG = ("--set", "gateway_log=log.jsonl")
BODY = b'{"model":"claude-x"}'
EVENTS = message_events("gw-large")
OUTCOMES: dict[str, tuple[Answer, str]] = {
    "whole": (json_reply(message()), "ok"),
    "whole stream": (Stream(EVENTS, gated=False), "ok"),
    "status": (Reply(529, b"{}"), "upstream_error"),
    "closed": (Close(), "upstream_error"),
    # The connection ends as it should, the stream of events does not.
    "cut stream": (Stream(EVENTS[:3], gated=False), "upstream_broke_off"),
    "cut body": (Bytes(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n1234"), "upstream_broke_off"),
}


def outcome(proxy: Mitmdump, number: int = 0) -> str:
    """Wait for a line of the log."""
    log = proxy.home / "log.jsonl"
    wait_until(lambda: log.exists() and log.read_text().count("\n") > number)
    line: dict[str, Any] = json.loads(log.read_text().splitlines()[number])
    return str(line["outcome"])


def test_the_log_has_the_outcome_of_each_response(gateway: StartGateway) -> None:
    upstream, proxy = gateway(None, "", *LOG)
    for number, (name, (upstream.script, expected)) in enumerate(OUTCOMES.items()):
        with Wire(proxy.port) as client:
            client.send_request("POST", "/v1/messages", HEADERS, BODY)
            client.read_head()
            assert outcome(proxy, number) == expected, name


def test_refused_requests_and_clients_that_leave_are_logged_as_such(gateway: StartGateway) -> None:
    _, proxy = gateway(Stream(EVENTS), "", *LOG)
    with Wire(proxy.port) as client:
        client.request("POST", "/v1/../messages", HEADERS, BODY)
    assert outcome(proxy) == "refused"
    with Wire(proxy.port) as client:
        client.send_request("POST", "/v1/messages", HEADERS, BODY)
        client.read_head()
    assert outcome(proxy, 1) == "client_left"


@pytest.mark.skipif("tcp_timeout" not in Options(), reason="this mitmproxy has no option tcp_timeout")
def test_a_long_silence_is_logged_as_timed_out(gateway: StartGateway) -> None:
    _, proxy = gateway(Hang(), "", *LOG, "--set", "tcp_timeout=2")
    with Wire(proxy.port) as client:
        client.send_request("POST", "/v1/messages", HEADERS, BODY)
        assert outcome(proxy) == "timed_out"
