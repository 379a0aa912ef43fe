"""The same lines in `gateway_log` and in Envoy's access log: tokens and outcomes of every API."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mitmproxy.options import Options

from behaviour.engines import ENGINES, LOG, started
from support.answers import (
    Answer,
    Bytes,
    Close,
    Hang,
    Header,
    Reply,
    Seen,
    Stream,
    json_reply,
    message,
    message_events,
)
from support.aws import chunk, converse_events, frame
from support.constants import API, CK, ENV, GW, REVERSE
from support.envoy import Envoy
from support.fixture_types import StartMitmdump, StartRecorder
from support.http_client import Response, Wire
from support.recorder import Recorder
from support.table import table
from support.waiting import wait_until

pytestmark = pytest.mark.e2e

KEY = "sk-ant-api03-abcdef"  # too short for a mask with its last letters
GEMINI = {
    "candidates": [{"content": {"parts": [{"text": "hi"}], "role": "model"}, "finishReason": "STOP"}],
    "usageMetadata": {
        "promptTokenCount": 8, "candidatesTokenCount": 3, "thoughtsTokenCount": 4, "cachedContentTokenCount": 5,
    },
    "modelVersion": "gemini-x",
}  # fmt: skip
CONVERSE = {
    "output": {"message": {"role": "assistant", "content": [{"text": "hi"}]}},
    "stopReason": "end_turn",
    "usage": {"inputTokens": 5, "outputTokens": 2, "cacheReadInputTokens": 3, "cacheWriteInputTokens": 4},
}
CACHED = {
    "input_tokens": 1,
    "output_tokens": 2,
    "cache_creation_input_tokens": 3,
    "cache_read_input_tokens": 4,
}
CHAT = {
    "model": "m",
    "choices": [{"finish_reason": "stop"}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 2},
}
FRAMES = (("Content-Type", "application/vnd.amazon.eventstream"),)
BEDROCK_EVENTS = (
    chunk(
        {"type": "message_start", "message": {"model": "m", "usage": {"input_tokens": 3, "output_tokens": 1}}}
    ),
    chunk({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 6}}),
)
GEMINI_EVENTS = (
    b'data: {"usageMetadata":{"promptTokenCount":8},"modelVersion":"g"}\r\n\r\n',
    b"data: " + json.dumps(GEMINI).encode() + b"\r\n\r\n",
)


def sse(*events: bytes) -> Stream:
    return Stream(events, gated=False)


def binary(*events: bytes) -> Stream:
    return Stream(events, gated=False, headers=FRAMES)


GENERATE, STREAM = "/v1beta/models/g:generateContent", "/v1beta/models/g:streamGenerateContent"
INVOKE, CONVERSE_STREAM = "/model/a/invoke-with-response-stream", "/model/a/converse-stream"
# Path, answer, and the tokens that the log has: input, output, read from the cache, written to it.
ANSWERS: dict[str, tuple[str, Answer, tuple[int | None, ...]]] = {
    "messages": ("/v1/messages", json_reply(message(usage=CACHED)), (1, 2, 4, 3)),
    "messages stream": ("/v1/messages", sse(*message_events()), (11, 7, None, None)),
    "chat": ("/v1/chat/completions", json_reply(CHAT), (1, 2, None, None)),
    "gemini": (GENERATE, json_reply(GEMINI), (8, 7, 5, None)),
    "gemini stream": (f"{STREAM}?alt=sse", sse(*GEMINI_EVENTS), (8, 7, 5, None)),
    "gemini list": (STREAM, json_reply([{"modelVersion": "g"}, GEMINI]), (8, 7, 5, None)),
    "converse": ("/model/a/converse", json_reply(CONVERSE), (5, 2, 3, 4)),
    "converse stream": (CONVERSE_STREAM, binary(*converse_events("a", "b")), (11, 7, 5, None)),
    "converse in one piece": (CONVERSE_STREAM, binary(b"".join(converse_events("a"))), (11, 7, 5, None)),
    "bedrock stream": (INVOKE, binary(*BEDROCK_EVENTS), (3, 6, None, None)),
}
THROTTLED = frame(b"{}", message_type="exception", exception_type="throttlingException")
CUT = Bytes(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n1234")
CHAT_EVENTS = (
    b'data: {"model":"m","choices":[{"finish_reason":null}]}\n\n',
    b'data: {"model":"m","choices":[{"finish_reason":"stop"}]}\n\n',
    b'data: {"model":"m","choices":[],"usage":{"prompt_tokens":1}}\n\ndata: [DONE]\n\n',
)
OUTCOMES: dict[str, tuple[str, Answer, str]] = {
    "a whole body": ("/v1/messages", json_reply(message()), "ok"),
    "a whole stream": ("/v1/messages", sse(*message_events()), "ok"),
    "a whole stream of chat completions": ("/v1/chat/completions", sse(*CHAT_EVENTS), "ok"),
    "a stream that lacks its end": ("/v1/messages", sse(*message_events()[:3]), "upstream_broke_off"),
    "frames that lack their end": (INVOKE, binary(*BEDROCK_EVENTS[:1]), "upstream_broke_off"),
    "a stream that ends in an error": (CONVERSE_STREAM, binary(THROTTLED), "upstream_error"),
    "a stream that ends in a key": (
        "/v1/messages",
        sse(message_events()[0], b'data: {"type":"error","error":{"type":"%s"}}\n\n' % KEY.encode()),
        "upstream_error",
    ),
    "a body that lacks its end": ("/v1/messages", CUT, "upstream_broke_off"),
    "an error": ("/v1/messages", Reply(529, b"{}"), "upstream_error"),
    "a closed connection": ("/v1/messages", Close(), "upstream_error"),
    "an empty answer of a model": ("/v1/messages", Reply(200, b""), "upstream_error"),
    "an empty answer of a model in the path": (GENERATE, Reply(200, b""), "upstream_error"),
    "an empty answer of no model": ("/v1/files", Reply(200, b""), "ok"),
    "no rule": ("/nothing", Close(), "refused"),
    "dot segments": ("/v1/%2e%2e/x", Close(), "refused"),
    "a missing credential": ("/missing/x", Close(), "refused"),
    "a local answer": ("/v1/models", Close(), "ok"),
    "an estimate": ("/v1/messages/count_tokens", Close(), "ok"),
}
# Envoy's routes answer these, without a reason in the log.
ANSWERED_BY_ROUTES = ("no rule", "a missing credential")
ALL = {**{f"tokens of {name}": answer for name, answer in ANSWERS.items()}, **OUTCOMES}
RULES = """
credentials: {{gw: {{env: GW_KEY}}, missing: {{env: UNSET_KEY}}}}
rules:
  - name: missing
    match: {{host: {host}, path: /missing/**}}
    upstream: {url}
    auth: {{scheme: bearer, credential: missing}}
  - name: gw
    match: {{host: {host}, path: [/v1/**, /v1beta/**, /model/**]}}
    upstream: {url}
    auth: {{scheme: bearer, credential: gw}}
    headers: {{remove: [session_id, x-claude-code-*]}}
    models: {{map: {{a: a-sent}}}}
    respond: {{models: true, count_tokens: estimate}}
"""


class Logged:
    """An engine whose upstream answers as the header `X-Case` names, and the lines of its log."""

    def __init__(self, proxy: Any, upstream: Recorder, file: Path) -> None:
        self.proxy, self.upstream, self.file = proxy, upstream, file
        self.answer: Response | None = None

    def ask(
        self, name: str, target: str, *headers: Header, leaves: bool = False, model: str = "a"
    ) -> dict[str, Any]:
        """Send a request, keep its answer, and return its line of the log."""
        count, self.answer = self._count(), None
        method = "GET" if target == "/v1/models" else "POST"
        body = json.dumps({"model": model}).encode() if method == "POST" else b""
        with Wire(self.proxy.port) as client:
            client.send_request(method, target, [("Host", "localhost"), ("X-Case", name), *headers], body)
            if leaves:
                client.read_head()
            else:
                with contextlib.suppress(ConnectionError):
                    self.answer = client.read_response(method)
        wait_until(lambda: self._count() > count, lambda: f"no line for {name}")
        line: dict[str, Any] = json.loads(self.file.read_text().splitlines()[count])
        return line

    def _count(self) -> int:
        return self.file.read_text().count("\n") if self.file.exists() else 0


@pytest.fixture(scope="module", params=ENGINES)
def logged(request: pytest.FixtureRequest) -> Iterator[Logged]:
    def answer(request: Seen) -> Answer:
        name = request.header("x-case") or ""
        return Stream(message_events()) if name == "endless" else ALL[name][1]

    with started(request, lambda url: RULES.format(host=API, url=url), tokens=True) as (proxy, upstream):
        upstream.script = answer
        yield Logged(proxy, upstream, (proxy.folder if isinstance(proxy, Envoy) else proxy.home) / LOG)


@table("name", ANSWERS)
def test_the_log_has_the_tokens_of_every_api(logged: Logged, name: str) -> None:
    path, _, tokens = ANSWERS[name]
    line = logged.ask(f"tokens of {name}", path, ("Accept-Encoding", "gzip"))
    kinds = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_creation_tokens")
    assert tuple(line.get(kind) for kind in kinds) == tokens, line
    assert line["outcome"] == "ok"
    assert logged.upstream.requests[-1].header("accept-encoding") == "identity"


@table("name", OUTCOMES)
def test_the_log_has_the_outcome(logged: Logged, name: str) -> None:
    path, _, outcome = OUTCOMES[name]
    line = logged.ask(name, path)
    assert line["outcome"] == outcome
    if outcome == "refused":
        assert logged.answer is not None
        assert line["status"] == logged.answer.status
        assert line.get("refusal", "") in json.loads(logged.answer.body)["error"]["message"]
        assert line.get("refusal") or name in ANSWERED_BY_ROUTES
    assert (line.get("status") == 424) == (name == "a missing credential")


def test_a_line_has_the_same_fields_on_every_engine_and_no_secret(logged: Logged) -> None:
    line = logged.ask("a whole body", "/v1/messages?key=mine", ("x-api-key", CK), model='é"\n')
    measured = ("time", "first_event_ms", "total_ms", "bytes_in", "bytes_out")
    assert all(line.pop(name) is not None for name in measured)
    assert line == {
        "rule": "gw", "model": 'é"␊', "method": "POST", "host": API, "path": "/v1/messages",
        "upstream": logged.upstream.url, "model_sent": 'é"␊', "status": 200,
        "input_tokens": 11, "output_tokens": 7, "outcome": "ok",
    }  # fmt: skip
    text = logged.file.read_text()
    assert not any(secret in text for secret in (CK, GW, "mine"))


def test_a_client_that_leaves_is_logged(logged: Logged) -> None:
    assert logged.ask("endless", "/v1/messages", leaves=True)["outcome"] == "client_left"


def test_session_and_agent_are_logged_though_the_rule_removes_their_headers(logged: Logged) -> None:
    named = (("session_id", "s-1"), ("X-Claude-Code-Agent-Id", "agent.1"))
    line = logged.ask("a whole body", "/v1/messages", *named)
    assert (line["session"], line["agent"]) == ("s-1", "agent.1")


def test_no_key_is_logged_as_a_session_or_in_a_path(logged: Logged) -> None:
    line = logged.ask("a whole body", f"/v1/{KEY}", ("X-Session-Id", KEY))
    assert "sk-ant" not in json.dumps(line)
    assert line["path"].removeprefix("/v1/") == "****"
    assert line.get("session") in (None, "****")
    assert logged.ask("a stream that ends in a key", "/v1/messages")["refusal"] == "upstream: ****"


@table(
    ("model", "shown"),
    [("\x1b[2J\n\x9b\u202e", "␛[2J␊\\u009b\\u202e"), ("m" * 300, "m" * 255 + "…"), (KEY, "****")],
)
def test_a_models_name_is_logged_on_one_line_and_without_a_key(
    logged: Logged, model: str, shown: str
) -> None:
    line = logged.ask("a whole body", "/v1/messages", model=model)
    assert (line["model"], line["model_sent"]) == (shown, shown)


@pytest.mark.skipif("tcp_timeout" not in Options(), reason="this mitmproxy has no option tcp_timeout")
def test_a_long_silence_is_logged_as_timed_out(
    mitmdump: StartMitmdump, recorder: StartRecorder, tmp_path: Path
) -> None:
    log, upstream = tmp_path / LOG, recorder(Hang())
    options = ("--set", f"gateway_log={log}", "--set", "tcp_timeout=2")
    proxy = mitmdump(*options, rules=RULES.format(host=API, url=upstream.url), modes=REVERSE, env=ENV)
    with Wire(proxy.port) as client:
        client.send_request("POST", "/v1/messages", [("Host", "localhost")], b"{}")
        wait_until(lambda: log.exists() and "timed_out" in log.read_text())
