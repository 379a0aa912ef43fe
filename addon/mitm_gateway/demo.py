"""The embedded demo gateway: a small Messages API server on loopback that insists on a bearer token.

It needs no account and calls no model. Its answers show the received request, and so the changes of the rules.
"""

import asyncio
import json
import re
import secrets
import time
from collections.abc import Iterator, Mapping
from typing import Any

from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPHeaders
from tornado.iostream import StreamClosedError
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

from .text.bounded_json import parsed_object
from .text.redact import masked_header

MODELS = ("claude-opus-4.6", "claude-sonnet-4.6", "claude-haiku-4.5")
NATURAL_PAUSE_S = 0.03  # between two words: about 30 tokens a second, as a model writes

_QUOTED_CHARACTERS = 200  # the part of the user's prompt that the answer repeats

Json = dict[str, Any]


class DemoGateway:
    """A demo gateway in the running asyncio loop."""

    def __init__(self, *, pause_s: float = NATURAL_PAUSE_S) -> None:
        self._pause_s = pause_s
        self._server: HTTPServer | None = None

    def start(self, port: int = 0) -> int:
        """Listen on 127.0.0.1, in the running loop, and return the port (a free one for 0)."""
        sockets = bind_sockets(port, address="127.0.0.1")
        self._server = HTTPServer(application(pause_s=self._pause_s))
        self._server.add_sockets(sockets)
        return int(sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Close the listener and every connection, also in the middle of an answer."""
        if self._server is not None:
            server, self._server = self._server, None
            server.stop()
            await server.close_all_connections()


def application(*, pause_s: float) -> Application:
    """The gateway's paths. Requests are not logged: inside mitmproxy the flow list shows them."""
    return Application(
        [
            (r"/v1/messages", _Messages, {"pause_s": pause_s}),
            (r"/v1/messages/count_tokens", _CountTokens),
            (r"/v1/models", _Models),
            (r"/v1/chat/completions", _ChatCompletions, {"pause_s": pause_s}),
        ],
        default_handler_class=_Gateway,
        log_function=lambda handler: None,
    )


class _Gateway(RequestHandler):
    """The parts common to all paths: the bearer check and errors in Anthropic's form; by itself, any unknown path."""

    methods: tuple[str, ...] = ()

    def set_default_headers(self) -> None:
        self.clear_header("Server")
        self.set_header("request-id", _new_id("req"))

    def prepare(self) -> None:
        if self.request.method == "HEAD":  # a client's first probe carries no credential
            self.finish()
        elif not _has_bearer(self.request.headers):
            self.refuse(
                401, "authentication_error", 'the demo gateway wants "Authorization: Bearer <anything>"'
            )
        elif type(self) is _Gateway:
            self.refuse(404, "not_found_error", f"the demo gateway has no {self.request.path}")
        elif self.request.method not in self.methods:
            allowed = " or ".join(self.methods)
            self.refuse(405, "invalid_request_error", f"{self.request.path} takes {allowed}")

    def refuse(self, status: int, kind: str, message: str) -> None:
        self.set_status(status)
        self.set_header(
            "x-should-retry", "false"
        )  # otherwise Claude Code repeats a 401 for minutes (2.1.331)
        self.finish(
            {
                "type": "error",
                "error": {"type": kind, "message": message},
                "request_id": self._headers.get("request-id"),
            }
        )

    def question(self) -> Json | None:
        """Return the body as a JSON object, or `None` after a 400."""
        if (asked := parsed_object(self.request.body)) is None:
            self.refuse(400, "invalid_request_error", "the request body is not a JSON object")
        return asked

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        self.refuse(status_code, "api_error", f"the demo gateway could not answer: {self._reason}")


class _Speaker(_Gateway):
    """A path that answers with text, at once or word by word."""

    methods = ("POST",)

    def initialize(self, pause_s: float) -> None:
        self._pause_s = pause_s

    async def stream(self, events: Iterator[str], *, pause_before: str) -> None:
        """Send each event by itself; those that hold `pause_before` wait a little, as a model's words do."""
        self.set_header("content-type", "text/event-stream; charset=utf-8")
        self.set_header("cache-control", "no-cache")
        try:
            for event in events:
                if pause_before in event:
                    await asyncio.sleep(self._pause_s)
                self.write(event)
                await self.flush()
        except StreamClosedError:
            return  # the client hung up


class _Messages(_Speaker):
    async def post(self) -> None:
        if (asked := self.question()) is None:
            return
        text = reply_text(asked, self.request.headers)
        if asked.get("stream") is True:
            await self.stream(_message_events(asked, text), pause_before="content_block_delta")
        else:
            await self.finish(
                _message(asked, content=[{"type": "text", "text": text}], stop="end_turn", words=_words(text))
            )


class _CountTokens(_Gateway):
    methods = ("POST",)

    def post(self) -> None:
        if (asked := self.question()) is not None:
            self.finish({"input_tokens": _input_tokens(asked)})


class _Models(_Gateway):
    methods = ("GET",)

    def get(self) -> None:
        data = [
            {"type": "model", "id": name, "display_name": name, "created_at": "2026-01-01T00:00:00Z"}
            for name in MODELS
        ]
        self.finish({"data": data, "has_more": False, "first_id": MODELS[0], "last_id": MODELS[-1]})


class _ChatCompletions(_Speaker):
    async def post(self) -> None:
        if (asked := self.question()) is None:
            return
        text = reply_text(asked, self.request.headers)
        if asked.get("stream") is True:
            await self.stream(_completion_chunks(asked, text), pause_before='"content"')
            return
        message = {"role": "assistant", "content": text, "refusal": None}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
        answer = {"choices": [choice], "usage": _completion_usage(asked, text)}
        await self.finish(_completion("chat.completion", asked) | answer)


def reply_text(asked: Mapping[str, Any], headers: HTTPHeaders) -> str:
    """Return the text of the answer: the model, the headers it saw with secrets masked, and the user's last words."""
    fields = sorted(
        headers.get_all(), key=lambda field: field[0].lower() != "authorization"
    )  # the rule's work first
    seen = "\n".join(f"- {name.lower()}: {masked_header(name, value)}" for name, value in fields)
    return (
        f"Hello from the demo gateway! It was asked for the model {asked.get('model')}.\n\n"
        f"Headers it saw:\n{seen}\n\n"
        f"You said: {last_words(asked)}"
    )


def last_words(asked: Mapping[str, Any]) -> str:
    """Return the last text that the user wrote, without the reminders that Claude Code adds."""
    messages = asked.get("messages")
    for message in reversed(messages if isinstance(messages, list) else []):
        if isinstance(message, dict) and message.get("role") == "user":
            for text in reversed(list(_texts(message.get("content")))):
                if not text.lstrip().startswith("<system-reminder>"):
                    return text.strip()[:_QUOTED_CHARACTERS]
    return "nothing"


def _texts(content: object) -> Iterator[str]:
    if isinstance(content, str):
        yield content
    elif isinstance(content, list):
        for block in content:
            if isinstance(block, dict) and isinstance(block.get("text"), str):
                yield block["text"]


def _has_bearer(headers: HTTPHeaders) -> bool:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return scheme.lower() == "bearer" and bool(token.strip())


def _message(asked: Mapping[str, Any], *, content: list[Json], stop: str | None, words: list[str]) -> Json:
    return {
        "id": _new_id("msg"),
        "type": "message",
        "role": "assistant",
        "model": asked.get("model"),
        "content": content,
        "stop_reason": stop,
        "stop_sequence": None,
        "usage": {"input_tokens": _input_tokens(asked), "output_tokens": len(words)},
    }


def _message_events(asked: Mapping[str, Any], text: str) -> Iterator[str]:
    words = _words(text)
    yield _event("message_start", message=_message(asked, content=[], stop=None, words=words[:1]))
    yield _event("content_block_start", index=0, content_block={"type": "text", "text": ""})
    yield _event("ping")
    for word in words:
        yield _event("content_block_delta", index=0, delta={"type": "text_delta", "text": word})
    yield _event("content_block_stop", index=0)
    end = {"stop_reason": "end_turn", "stop_sequence": None}
    yield _event("message_delta", delta=end, usage={"output_tokens": len(words)})
    yield _event("message_stop")


def _event(kind: str, **fields: object) -> str:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n"


def _completion(kind: str, asked: Mapping[str, Any]) -> Json:
    now = int(time.time())
    return {"id": _new_id("chatcmpl"), "object": kind, "created": now, "model": asked.get("model")}


def _completion_usage(asked: Mapping[str, Any], text: str) -> Json:
    prompt, completion = _input_tokens(asked), len(_words(text))
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def _completion_chunks(asked: Mapping[str, Any], text: str) -> Iterator[str]:
    head = _completion("chat.completion.chunk", asked)

    def chunk(delta: Json, *, finish: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return f"data: {json.dumps(head | {'choices': [choice]})}\n\n"

    yield chunk({"role": "assistant"})
    for word in _words(text):
        yield chunk({"content": word})
    yield chunk({}, finish="stop")
    options = asked.get("stream_options")
    if isinstance(options, dict) and options.get("include_usage") is True:
        yield f"data: {json.dumps(head | {'choices': [], 'usage': _completion_usage(asked, text)})}\n\n"
    yield "data: [DONE]\n\n"


def _words(text: str) -> list[str]:
    """The text in pieces of a word and the space after it; joined they are the text."""
    return re.findall(r"\S+\s*", text)


def _input_tokens(asked: Mapping[str, Any]) -> int:
    return max(1, len(json.dumps(asked)) // 4)  # about four characters to a token


def _new_id(prefix: str) -> str:
    return f"{prefix}_{secrets.token_hex(12)}"
