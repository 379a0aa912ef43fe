"""The outcome of a request in `gateway_log`: whole, refused, failed, or cut short by one of the three that can."""

import json
from pathlib import Path
from typing import Any

import pytest
from mitmproxy.options import Options

from support.answers import Answer, Bytes, Close, Hang, Reply, Stream, json_reply, message, message_events
from support.constants import ENV, HEADERS, REVERSE
from support.recorder import Recorder
from support.rules import one_rule
from support.starters import StartMitmdump, StartRecorder
from support.waiting import wait_until
from support.wire import Wire

pytestmark = pytest.mark.e2e

BODY = b'{"model":"claude-x"}'
EVENTS = message_events("gw-large")
needs_timeout = pytest.mark.skipif(
    "tcp_timeout" not in Options(), reason="this mitmproxy has no option tcp_timeout"
)


def rules(upstream: Recorder) -> str:
    return one_rule(upstream.url)


def entry(log: Path) -> dict[str, Any]:
    """Wait for the first line of a log."""
    wait_until(lambda: log.exists() and log.read_text().endswith("\n"))
    line: dict[str, Any] = json.loads(log.read_text().splitlines()[0])
    return line


@pytest.mark.parametrize(
    ("answer", "body", "outcome"),
    [
        (json_reply(message()), BODY, "ok"),
        (Stream(EVENTS, gated=False), BODY, "ok"),
        (Reply(529, b"{}"), BODY, "upstream_error"),
        (Close(), BODY, "upstream_error"),
        # The connection ends as it should, the stream of events does not.
        (Stream(EVENTS[:3], gated=False), BODY, "upstream_broke_off"),
        (Bytes(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n1234"), BODY, "upstream_broke_off"),
    ],
    ids=["whole", "whole stream", "status", "closed", "cut stream", "cut body"],
)
def test_the_upstream_decides(
    mitmdump: StartMitmdump,
    recorder: StartRecorder,
    tmp_path: Path,
    answer: Answer,
    body: bytes,
    outcome: str,
) -> None:
    upstream, log = recorder(answer), tmp_path / "log.jsonl"
    proxy = mitmdump("--set", f"gateway_log={log}", rules=rules(upstream), modes=REVERSE, env=ENV)
    with Wire(proxy.port) as client:
        client.send_request("POST", "/v1/messages", HEADERS, body)
        client.read_head()
        assert entry(log)["outcome"] == outcome


def test_a_refused_request(mitmdump: StartMitmdump, recorder: StartRecorder, tmp_path: Path) -> None:
    upstream, log = recorder(json_reply(message())), tmp_path / "log.jsonl"
    proxy = mitmdump("--set", f"gateway_log={log}", rules=rules(upstream), modes=REVERSE, env=ENV)
    with Wire(proxy.port) as client:
        client.request("POST", "/v1/../messages", HEADERS, BODY)
    assert entry(log)["outcome"] == "refused"


def test_a_client_that_leaves(mitmdump: StartMitmdump, recorder: StartRecorder, tmp_path: Path) -> None:
    upstream, log = recorder(Stream(EVENTS)), tmp_path / "log.jsonl"
    proxy = mitmdump("--set", f"gateway_log={log}", rules=rules(upstream), modes=REVERSE, env=ENV)
    with Wire(proxy.port) as client:
        client.send_request("POST", "/v1/messages", HEADERS, BODY)
        client.read_head()
    assert entry(log)["outcome"] == "client_left"


@needs_timeout
def test_a_long_silence(mitmdump: StartMitmdump, recorder: StartRecorder, tmp_path: Path) -> None:
    upstream, log = recorder(Hang()), tmp_path / "log.jsonl"
    options = ("--set", f"gateway_log={log}", "--set", "tcp_timeout=2")
    proxy = mitmdump(*options, rules=rules(upstream), modes=REVERSE, env=ENV)
    with Wire(proxy.port) as client:
        client.send_request("POST", "/v1/messages", HEADERS, BODY)
        assert entry(log)["outcome"] == "timed_out"
