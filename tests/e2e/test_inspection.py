"""mitmweb during and after a real exchange: views, comment, marker, replay."""

import contextlib
import json
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest

from mitm_gateway.observe.stats import Stats
from mitm_gateway.wire.aws_eventstream import CONTENT_TYPE as EVENT_STREAM
from support.answers import Answer, Bytes, Close, Reply, Stream, anthropic_error, event, message_events
from support.aws import converse_events
from support.constants import CK, ENV, GW, GW_MASKED, HEADERS, REVERSE
from support.fixture_types import StartGateway, StartMitmdump
from support.http_client import Wire
from support.mitmdump import Mitmdump
from support.mitmweb import Flow, flows_of, has_ended, replay, view, wait_for_flow
from support.one_rule import rules
from support.recorder import Recorder
from support.waiting import wait_until

pytestmark = pytest.mark.e2e
BODY = json.dumps(
    {
        "model": "claude-opus-4",
        "context_management": {"edits": []},
        "messages": [{"role": "user", "content": "say \x1b[31mred"}],
    }
).encode()
FIRST = message_events("gw-large")[0]
WHOLE = Stream(message_events("gw-large"), gated=False)


EDITS = "body: {remove: [context_management]}\nmodels: {map: {claude-opus-*: gw-large}}"
LOG = ("--set", "gateway_log=log.jsonl")


@pytest.fixture
def shown(gateway: StartGateway) -> StartGateway:
    """Start mitmweb with a rule and its upstream: `shown(script, *options)`."""
    return lambda script, *options, **more: gateway(script, EDITS, *options, web=True, **more)


def post(proxy: Mitmdump) -> None:
    with Wire(proxy.port) as client:
        client.request("POST", "/v1/messages?beta=true", HEADERS, BODY)


Record = Callable[[], tuple[Recorder, Path]]


@pytest.fixture
def record(gateway: StartGateway, tmp_path: Path) -> Record:
    """Record a call in a file; return the upstream and the file."""

    def recorded() -> tuple[Recorder, Path]:
        upstream, proxy = gateway(WHOLE, EDITS, "-w", str(tmp_path / "flows"))
        post(proxy)
        proxy.stop()
        return upstream, tmp_path / "flows"

    return recorded


def assert_sent_again(upstream: Recorder) -> None:
    """Assert that the upstream receives its first request once more, with the gateway's key only."""
    first, again = upstream.requests[0], upstream.wait_for_request(count=2)
    assert (again.target, again.body) == (first.target, first.body)
    assert (again.values("authorization"), again.values("x-api-key")) == ([f"Bearer {GW}"], [])


def test_both_views_and_the_comment_describe_a_call(shown: StartGateway) -> None:
    upstream, proxy = shown(WHOLE)
    post(proxy)
    flow = wait_for_flow(proxy, has_ended)
    assert flow["comment"].startswith("opus-4 11→7 → gw-large, gw: x-api-key → bearer, 200, ")
    assert flow["marked"] == "✅"
    for name in ("LLM", "Auto"):
        assert view(proxy, flow, "request", name) == "model: gw-large\n\nuser:\n  say ␛[31mred"
        assert view(proxy, flow, "response", name) == (
            "model: claude-opus-4\n\nassistant:\n  hello there\n\nstop: end_turn\n\nusage: in 11, out 7"
        )
    report = view(proxy, flow, "request", "Gateway").splitlines()
    for line in (
        "rule: gw",
        "outcome: ok, 200",
        "received: POST https://api.anthropic.com/v1/messages?beta=true",
        f"forwarded: POST {upstream.url}/base/v1/messages?beta=true",
        "auth: x-api-key → bearer",
        "credential: gw, fetched now",
        "model: claude-opus-4 → gw-large",
        "  remove context_management",
        "  - x-api-key: ****cdef",
        "    Content-Type: application/json",
        f"  + Authorization: Bearer {GW_MASKED}",
        "tokens: in 11, out 7",
    ):
        assert line in report, (line, report)
    assert CK not in "\n".join(report)
    assert GW not in "\n".join(report)


def test_mitmweb_shows_what_has_arrived_while_it_streams(shown: StartGateway) -> None:
    upstream, proxy = shown(Stream(message_events("gw-large", ["one ", "two ", "three"])))
    with Wire(proxy.port) as client:
        client.send_request("POST", "/v1/messages", HEADERS, BODY)
        upstream.wait_for_request()
        client.read_head()
        client.read_chunk()
        upstream.release(2)
        flow = wait_for_flow(proxy, lambda flow: flow["comment"].endswith("200, streaming"))
        for _ in range(2):
            client.read_chunk()

        def first_part() -> str:
            shown = view(proxy, flow, "response", "LLM")
            return shown if "assistant:\n  one " in shown else ""

        text = wait_until(first_part)
        assert "two" not in text
        assert "note: the stream has not ended" in text
        assert not flow["marked"]
        upstream.release(10)
        while client.read_chunk():
            pass
    flow = wait_for_flow(proxy, has_ended)
    assert "  one two three\n" in view(proxy, flow, "response", "LLM")


def test_a_client_that_hangs_up_is_marked(shown: StartGateway) -> None:
    _, proxy = shown(Stream(message_events("gw-large")))
    with Wire(proxy.port) as client:
        client.send_request("POST", "/v1/messages", HEADERS, BODY)
        client.read_head()
        client.read_chunk()
    flow = wait_for_flow(proxy, has_ended)
    assert flow["marked"].startswith("✂")
    assert flow["comment"].startswith(
        "client left, 200: Client disconnected, gw: x-api-key → bearer, opus-4 11→1 "
    )
    assert "assistant:" in view(proxy, flow, "response", "LLM")


def test_an_error_comes_with_a_hint_in_comment_and_log(shown: StartGateway) -> None:
    error = anthropic_error(
        400, "invalid_request_error", "tools.0.custom.defer_loading: Extra inputs are not permitted"
    )
    _, proxy = shown(error, *LOG)
    for _ in range(2):
        post(proxy)
    hint = 'the upstream does not support a field; add body: {remove: ["tools[*].defer_loading"]} to the rule'
    flow = wait_for_flow(proxy, has_ended)
    assert flow["marked"] == "❌"
    assert flow["comment"].startswith(
        f"400: invalid_request_error; {hint}, gw: x-api-key → bearer, opus-4 → "
    )
    assert f"hint: {hint}" in view(proxy, flow, "response", "Gateway")
    assert view(proxy, flow, "response", "LLM").startswith("error:\n  invalid_request_error: tools.0")
    proxy.stop()
    assert proxy.output().count(f"gw: answered with 400: {hint}") == 1
    entries = [json.loads(line) for line in (proxy.home / "log.jsonl").read_text().splitlines()]
    assert [entry["hint"] for entry in entries] == [hint, hint]


def test_a_stream_that_fails_is_marked(shown: StartGateway) -> None:
    late = event("error", error={"type": "overloaded_error", "message": "busy"})
    _, proxy = shown(Stream((*message_events("gw-large")[:3], late), gated=False), *LOG)
    post(proxy)
    flow = wait_for_flow(proxy, has_ended)
    assert flow["marked"] == "❌"
    assert flow["comment"].startswith("200: overloaded_error, gw: ")
    assert "error:\n  overloaded_error: busy" in view(proxy, flow, "response", "LLM")
    assert "outcome: upstream_error, 200, overloaded_error\n" in view(proxy, flow, "response", "Gateway")
    proxy.stop()
    log = proxy.home / "log.jsonl"
    entry = json.loads(log.read_text())
    assert (entry["status"], entry["refusal"]) == (200, "upstream: overloaded_error")
    stats = Stats()
    stats.add_lines(BytesIO(log.read_bytes()))
    assert stats.table()[1].split()[:4] == ["gw", "gw-large", "1", "1"]


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def ended_with(text: str) -> Callable[[Flow], bool]:
    """Fit a flow that has ended with this text in its comment."""
    return lambda flow: has_ended(flow) and text in flow["comment"]


def test_an_upstream_that_breaks_off_is_an_error_of_the_upstream(shown: StartGateway) -> None:
    upstream, proxy = shown(None, *LOG)
    broken: dict[str, Answer] = {
        "peer closed connection without sending": Bytes(HEAD + b"%x\r\n%b\r\n" % (len(FIRST), FIRST)),
        "server closed connection": Close(),
        "Bad HTTP response line: b'…'": Bytes(f"NO ANSWER BUT {GW}\r\n\r\n".encode()),
    }
    for told, upstream.script in broken.items():
        with contextlib.suppress(ConnectionError):
            post(proxy)
        assert wait_for_flow(proxy, ended_with(told))["marked"] == "❌"
    shown_flows = json.dumps(flows_of(proxy))
    proxy.stop()
    text = (proxy.home / "log.jsonl").read_text()
    for told, line in zip(broken, text.splitlines(), strict=True):
        assert told in json.loads(line)["refusal"]
    # The upstream's response may contain the key.
    assert GW not in shown_flows + text + proxy.output()


def test_a_stream_without_its_last_events_is_reported(shown: StartGateway) -> None:
    _, proxy = shown(Stream(message_events("gw-large")[:4], gated=False))
    post(proxy)
    assert wait_for_flow(proxy, has_ended)["comment"].endswith("no stop reason: the stream ended early")


def test_an_unusable_response_is_an_error_with_any_status(shown: StartGateway) -> None:
    upstream, proxy = shown(None)
    unusable = {
        "redirects to https://login.test": Reply(302, headers=(("Location", "https://login.test/sso"),)),
        "an HTML page": Reply(200, b"<html>log in", (("Content-Type", "text/html; charset=utf-8"),)),
        "an empty response": Reply(200, headers=(("Content-Type", "application/json"),)),
    }
    for hint, upstream.script in unusable.items():
        post(proxy)
        assert wait_for_flow(proxy, ended_with(hint))["marked"] == "❌"


def test_a_converse_stream_of_bedrock_is_shown(shown: StartGateway) -> None:
    frames = Stream(
        converse_events("hello ", "there"), gated=False, headers=(("Content-Type", EVENT_STREAM),)
    )
    _, proxy = shown(frames)
    body = json.dumps({"messages": [{"role": "user", "content": [{"text": "hi"}]}]}).encode()
    with Wire(proxy.port) as client:
        client.request("POST", "/v1/model/us.some-model/converse-stream", HEADERS, body)
    flow = wait_for_flow(proxy, has_ended)
    assert flow["comment"].startswith("some-model 16→7, gw: ")
    assert view(proxy, flow, "request", "Auto") == "user:\n  hi"
    text = view(proxy, flow, "response", "Auto")
    assert "  hello there\n  tool call Bash tooluse_1:\n    command: ls" in text
    assert "usage: in 11, out 7, cache read 5" in text


def test_a_refusal_is_marked_and_explained(shown: StartGateway) -> None:
    upstream, proxy = shown(None, env={})
    post(proxy)
    flow = wait_for_flow(proxy, has_ended)
    assert flow["marked"] == "⛔"
    report = view(proxy, flow, "response", "Gateway")
    assert "forwarded: nothing; answered locally" in report
    assert 'refusal: credential "gw": the environment variable GW_KEY is not set' in report
    assert CK not in report
    assert upstream.raw == b""


def test_flows_of_a_file_are_shown_and_not_changed(record: Record, mitmdump: StartMitmdump) -> None:
    upstream, file = record()
    kept = file.read_bytes()
    viewer = mitmdump("-r", str(file), *LOG, rules=rules(upstream.url, EDITS), env=ENV, web=True)
    flow = wait_for_flow(viewer, has_ended)
    assert flow["comment"].startswith("opus-4 11→7 → gw-large, gw: x-api-key → bearer, 200, ")
    assert view(viewer, flow, "request", "Auto") == "model: gw-large\n\nuser:\n  say ␛[31mred"
    report = view(viewer, flow, "response", "Gateway")
    assert f"forwarded: POST {upstream.url}/base/v1/messages?beta=true" in report
    assert f"  + Authorization: Bearer {GW_MASKED}" in report
    viewer.stop()
    assert file.read_bytes() == kept
    assert len(upstream.requests) == 1
    assert (viewer.home / "log.jsonl").read_text() == ""


@pytest.mark.parametrize("modes", [[], REVERSE], ids=["intercept", "reverse"])
def test_a_flow_of_a_file_can_be_replayed(record: Record, mitmdump: StartMitmdump, modes: list[str]) -> None:
    upstream, file = record()
    viewer = mitmdump("-r", str(file), web=True, modes=modes, rules=rules(upstream.url, EDITS), env=ENV)
    flow = wait_for_flow(viewer, has_ended)
    replay(viewer, flow)
    assert_sent_again(upstream)
    flow = wait_for_flow(viewer, lambda flow: has_ended(flow) and flow["is_replay"] == "request")
    # The rules saw the model that the client had asked for, and put it back into the answer.
    assert flow["comment"].startswith("opus-4 11→7 → gw-large, gw: ")
    assert view(viewer, flow, "response", "LLM").startswith("model: claude-opus-4\n")
