"""An upstream for every API: it insists on the gateway's key and knows its own model names only."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import unquote

from support.answers import Answer, Seen, Stream, event, json_reply, message, message_events
from support.constants import GW

MODEL = "gateway-model"
TEXT = "hello there"


def answer(request: Seen) -> Answer:
    """Answer as a gateway of the asked API would."""
    if request.values("authorization") != [f"Bearer {GW}"]:
        return json_reply({"error": {"message": "wrong key", "type": "authentication_error"}}, 401)
    path = unquote(request.path.partition("?")[0])
    if request.method == "GET":
        return json_reply({"object": "list", "data": [{"id": MODEL, "object": "model"}]})
    body = json.loads(request.body or b"{}")
    named = re.search(r"/models?/([^/:]+)", path)
    model = body.get("model") or (named[1] if named else None)
    if model != MODEL:
        return json_reply({"error": {"message": f"unknown model {model}", "type": "not_found_error"}}, 404)
    return _answers(path, body)


def _stream(events: Iterable[bytes]) -> Stream:
    return Stream(tuple(events), gated=False)


def _answers(path: str, body: dict[str, Any]) -> Answer:
    if path.endswith("/messages"):
        return _stream(message_events(MODEL)) if body.get("stream") else json_reply(message(MODEL))
    if path.endswith("/count_tokens"):
        return json_reply({"input_tokens": 7})
    if path.endswith("/chat/completions"):
        return _stream(_chat_events()) if body.get("stream") else json_reply(_chat())
    if path.endswith("/responses"):
        return _stream(_response_events()) if body.get("stream") else json_reply(_response())
    if path.endswith(":streamGenerateContent"):
        return _stream([b"data: " + json.dumps(_gemini()).encode() + b"\r\n\r\n"])
    if path.endswith(":generateContent"):
        return json_reply(_gemini())
    if path.endswith(":countTokens"):
        return json_reply({"totalTokens": 7})
    if path.endswith("/converse"):
        return json_reply(_converse())
    return json_reply({"error": {"message": f"no such path {path}", "type": "not_found_error"}}, 404)


def _chat() -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", "content": TEXT}, "finish_reason": "stop"}
    return {
        "id": "c1",
        "object": "chat.completion",
        "created": 1,
        "model": MODEL,
        "choices": [choice],
        "usage": _USAGE,
    }


_USAGE = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}


def _chat_events() -> Iterator[bytes]:
    for delta, reason in (({"role": "assistant", "content": TEXT}, None), ({}, "stop")):
        choice = {"index": 0, "delta": delta, "finish_reason": reason}
        chunk = {
            "id": "c1",
            "object": "chat.completion.chunk",
            "created": 1,
            "model": MODEL,
            "choices": [choice],
        }
        if reason:
            chunk["usage"] = _USAGE
        yield b"data: " + json.dumps(chunk).encode() + b"\n\n"
    yield b"data: [DONE]\n\n"


def _response(status: str = "completed") -> dict[str, Any]:
    done = status == "completed"
    usage = {
        "input_tokens": 5,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": 2,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 7,
    }
    return {
        "id": "r1", "object": "response", "created_at": 1, "status": status, "model": MODEL,
        "output": [_ITEM] if done else [],
        "usage": usage if done else None, "parallel_tool_calls": True, "tool_choice": "auto", "tools": [],
    }  # fmt: skip


_PART = {"type": "output_text", "text": TEXT, "annotations": []}
_ITEM = {"id": "m1", "type": "message", "role": "assistant", "status": "completed", "content": [_PART]}


def _response_events() -> Iterator[bytes]:
    place = {"item_id": "m1", "output_index": 0, "content_index": 0}
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": _response("in_progress")},
        {"type": "response.output_item.added", "output_index": 0, "item": {**_ITEM, "content": []}},
        {"type": "response.content_part.added", **place, "part": {**_PART, "text": ""}},
        {"type": "response.output_text.delta", **place, "delta": TEXT, "logprobs": []},
        {"type": "response.output_text.done", **place, "text": TEXT, "logprobs": []},
        {"type": "response.content_part.done", **place, "part": _PART},
        {"type": "response.output_item.done", "output_index": 0, "item": _ITEM},
        {"type": "response.completed", "response": _response()},
    ]  # fmt: skip
    for number, each in enumerate(events):
        yield event(each.pop("type"), sequence_number=number, **each)


def _gemini() -> dict[str, Any]:
    candidate = {"content": {"role": "model", "parts": [{"text": TEXT}]}, "finishReason": "STOP", "index": 0}
    usage = {"promptTokenCount": 5, "candidatesTokenCount": 2, "totalTokenCount": 7}
    return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": MODEL}


def _converse() -> dict[str, Any]:
    return {
        "output": {"message": {"role": "assistant", "content": [{"text": TEXT}]}},
        "stopReason": "end_turn",
        "usage": {"inputTokens": 5, "outputTokens": 2, "totalTokens": 7},
        "metrics": {"latencyMs": 1},
    }
