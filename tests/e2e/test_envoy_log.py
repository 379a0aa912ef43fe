"""The access log of an exported configuration: the keys of `gateway_log`, with tokens and outcomes of every API."""

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import pytest

from support.answers import Answer, Bytes, Close, Reply, Seen, Stream, json_reply, message, message_events
from support.aws import chunk, converse_events, frame
from support.constants import API, ENV, GW
from support.envoy import Envoy
from support.recorder import Recorder
from support.wire import Wire

pytestmark = pytest.mark.e2e

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
        sse(message_events()[0], b'data: {"type":"error","error":{"type":"sk-ant-api03-abcdefghijkl"}}\n\n'),
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
    """One Envoy whose upstream answers as the header `X-Case` names, and the lines of its access log."""

    def __init__(self, proxy: Envoy) -> None:
        self.proxy = proxy
        self._count = 0

    def ask(
        self, name: str, target: str, *headers: tuple[str, str], leaves: bool = False, model: str = "a"
    ) -> None:
        method = "GET" if target == "/v1/models" else "POST"
        body = json.dumps({"model": model}).encode() if method == "POST" else b""
        with Wire(self.proxy.port) as client:
            client.send_request(method, target, [("Host", "localhost"), ("X-Case", name), *headers], body)
            if leaves:
                client.read_head()
            else:
                with contextlib.suppress(ConnectionError, EOFError):
                    client.read_response(method)

    def line(self, name: str, target: str, *headers: tuple[str, str], **more: Any) -> dict[str, Any]:
        """Send a request; return its line of the log."""
        self.ask(name, target, *headers, **more)
        self._count += 1
        return self.proxy.log_line(self._count - 1)


@pytest.fixture(scope="module")
def logged(envoy_program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Logged]:
    def answer(request: Seen) -> Answer:
        name = request.header("x-case") or ""
        return Stream(message_events()) if name == "endless" else ALL[name][1]

    upstream = Recorder(answer)
    proxy = Envoy(
        envoy_program,
        tmp_path_factory.mktemp("envoy"),
        RULES.format(host=API, url=upstream.url),
        ENV,
        API,
        tokens=True,
    )
    yield Logged(proxy)
    proxy.kill()
    upstream.close()


@pytest.mark.parametrize("name", ANSWERS)
def test_the_log_has_the_tokens_of_every_api(logged: Logged, name: str) -> None:
    path, _, tokens = ANSWERS[name]
    line = logged.line(f"tokens of {name}", path)
    kinds = ("input_tokens", "output_tokens", "cache_read_tokens", "cache_creation_tokens")
    assert tuple(line.get(kind) for kind in kinds) == tokens, line
    assert line["outcome"] == "ok"


@pytest.mark.parametrize("name", OUTCOMES)
def test_the_log_has_the_outcome(logged: Logged, name: str) -> None:
    path, _, outcome = OUTCOMES[name]
    assert logged.line(name, path)["outcome"] == outcome


def test_a_client_that_leaves_is_logged(logged: Logged) -> None:
    assert logged.line("endless", "/v1/messages", leaves=True)["outcome"] == "client_left"


def test_session_and_agent_are_logged_though_the_rule_removes_their_headers(logged: Logged) -> None:
    line = logged.line(
        "a whole body", "/v1/messages", ("session_id", "s-1"), ("X-Claude-Code-Agent-Id", "agent.1")
    )
    assert (line["session"], line["agent"]) == ("s-1", "agent.1")


def test_no_key_is_logged_as_a_session_or_in_a_path(logged: Logged) -> None:
    line = logged.line(
        "a whole body", "/v1/sk-ant-api03-abcdefghijkl", ("X-Session-Id", "sk-ant-api03-abcdefghijkl")
    )
    assert "sk-ant" not in json.dumps(line)
    assert (line.get("session"), line["path"]) == (None, "****")
    assert logged.line("a stream that ends in a key", "/v1/messages")["refusal"] == "upstream: ****"
    assert GW not in json.dumps(line)


@pytest.mark.parametrize(
    ("model", "shown"),
    [
        ("\x1b[2J\n\x9b\u202e", "␛[2J␊\\u009b\\u202e"),
        ("m" * 300, "m" * 255 + "…"),
        ("sk-ant-api03-abcdefghijkl", "****"),
    ],
    ids=["escapes", "long", "key"],
)
def test_a_models_name_is_logged_on_one_line_and_without_a_key(
    logged: Logged, model: str, shown: str
) -> None:
    line = logged.line("a whole body", "/v1/messages", model=model)
    assert (line["model"], line["model_sent"]) == (shown, shown)
