"""Responses of upstreams under test, and ready-made responses of the Messages API."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

Header: TypeAlias = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Seen:
    """A request as an upstream got it: header names in the client's case and order, the body unchunked."""

    method: str
    target: str
    headers: tuple[Header, ...]
    body: bytes
    connection: int  # counts from 0, in the order in which connections were accepted

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    def values(self, name: str) -> list[str]:
        """Every value of a header, in order."""
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def header(self, name: str) -> str | None:
        """The first value of a header."""
        return next(iter(self.values(name)), None)

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class Reply:
    """A complete response; Content-Length is added unless it is given."""

    status: int = 200
    body: bytes = b""
    headers: tuple[Header, ...] = ()


@dataclass(frozen=True, slots=True)
class Stream:
    """Chunks sent one by one. When gated, each after the first waits for `Recorder.release()`."""

    chunks: Iterable[bytes]
    gated: bool = True
    status: int = 200
    headers: tuple[Header, ...] = (("Content-Type", "text/event-stream; charset=utf-8"),)
    trailers: tuple[Header, ...] = ()


@dataclass(frozen=True, slots=True)
class Bytes:
    """These bytes as they are, then the connection is closed (HTTP/1 only)."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Close:
    """Close the connection without a response."""


@dataclass(frozen=True, slots=True)
class Hang:
    """Send nothing until the client hangs up or the recorder is closed."""


Answer: TypeAlias = Reply | Stream | Bytes | Close | Hang
Script: TypeAlias = Answer | Callable[[Seen], Answer]


def json_reply(body: object, status: int = 200, headers: Sequence[Header] = ()) -> Reply:
    """A JSON answer."""
    data = json.dumps(body).encode()
    return Reply(status, data, (("Content-Type", "application/json"), *headers))


def anthropic_error(status: int, kind: str, message: str) -> Reply:
    """An error in Anthropic's form; without `x-should-retry` Claude Code would repeat a 401 for minutes."""
    error = {"type": kind, "message": message}
    return json_reply({"type": "error", "error": error}, status, [("x-should-retry", "false")])


def message(model: str = "claude-test", text: str = "hello there", **changes: Any) -> dict[str, Any]:
    """A complete response of the Messages API."""
    return {
        "id": "msg_test",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [{"type": "text", "text": text}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 11, "output_tokens": 7},
        **changes,
    }


def event(kind: str, **fields: Any) -> bytes:
    """One server-sent event of the Messages API."""
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()


def message_events(
    model: str = "claude-test", words: Sequence[str] = ("hello ", "there")
) -> tuple[bytes, ...]:
    """Events of a streamed response: five around one for each word."""
    deltas = ({"type": "text_delta", "text": word} for word in words)
    return _events(model, {"type": "text", "text": ""}, deltas, "end_turn")


def tool_events(model: str, tool: str, arguments: Mapping[str, Any]) -> tuple[bytes, ...]:
    """Events of a streamed response that calls a tool."""
    block = {"type": "tool_use", "id": "toolu_test", "name": tool, "input": {}}
    delta = {"type": "input_json_delta", "partial_json": json.dumps(arguments)}
    return _events(model, block, [delta], "tool_use")


def _events(
    model: str, block: dict[str, Any], deltas: Iterable[dict[str, str]], stop: str
) -> tuple[bytes, ...]:
    start = message(model, content=[], stop_reason=None, usage={"input_tokens": 11, "output_tokens": 1})
    end = {"stop_reason": stop, "stop_sequence": None}
    return (
        event("message_start", message=start),
        event("content_block_start", index=0, content_block=block),
        *(event("content_block_delta", index=0, delta=delta) for delta in deltas),
        event("content_block_stop", index=0),
        event("message_delta", delta=end, usage={"output_tokens": 7}),
        event("message_stop"),
    )


def claude_answers(request: Seen) -> Answer:
    """A script that satisfies Claude Code and the SDKs: messages, 200 to HEAD, 404 to the rest."""
    if request.method == "HEAD":
        return Reply()
    if request.method == "POST" and request.path.endswith("/v1/messages"):
        asked = request.json
        if asked.get("stream"):
            return Stream(message_events(asked["model"]), gated=False)
        return json_reply(message(asked["model"]))
    if request.path.endswith("/v1/messages/count_tokens"):
        return json_reply({"input_tokens": 11})
    return anthropic_error(404, "not_found_error", f"no {request.path} here")


def insist_on_bearer(key: str, then: Script = claude_answers) -> Callable[[Seen], Answer]:
    """A script that answers 401 unless the request has exactly this bearer token and no `x-api-key`."""

    def answer(request: Seen) -> Answer:
        if request.method == "HEAD":
            return Reply()
        if request.values("authorization") != [f"Bearer {key}"]:
            return anthropic_error(401, "authentication_error", "wrong or missing bearer token")
        if request.values("x-api-key"):
            return anthropic_error(401, "authentication_error", "x-api-key is not wanted here")
        return then(request) if callable(then) else then

    return answer
