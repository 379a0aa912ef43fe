"""An upstream for every API: it insists on the gateway's key, and only its own model name exists there.

It answers with `TEXT`, or first calls a tool that the client offers and answers when the result has arrived.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias
from urllib.parse import unquote

from support.answers import Answer, Seen, Stream, event, json_reply, message, message_events, tool_events
from support.constants import GW

MODEL = "gateway-model"
TEXT = "hello there"
Json: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Tool:
    """A call of a client's tool; `result` is a text that nothing but its result contains."""

    name: str
    # A text for the tools of the Responses API that take free text.
    input: Mapping[str, Any] | str
    result: str

    @property
    def arguments(self) -> Json:
        return {} if isinstance(self.input, str) else dict(self.input)


@dataclass(frozen=True, slots=True)
class Upstream:
    """A gateway of all APIs, as a script of a `Recorder`."""

    tool: Tool | None = None

    def __call__(self, request: Seen) -> Answer:
        if request.values("authorization") != [f"Bearer {GW}"]:
            return json_reply({"error": {"message": "wrong key", "type": "authentication_error"}}, 401)
        path = unquote(request.path.partition("?")[0])
        if request.method == "GET":
            return json_reply({"object": "list", "data": [{"id": MODEL, "object": "model"}]})
        body = json.loads(request.body or b"{}")
        named = re.search(r"/models?/([^/:]+)", path)
        model = body.get("model") or (named[1] if named else None)
        if model != MODEL:
            return json_reply(
                {"error": {"message": f"unknown model {model}", "type": "not_found_error"}}, 404
            )
        return _answer(path, body, self._call(body))

    def _call(self, body: Json) -> Tool | None:
        """Return the tool to call now: the client offers it, and its result has not arrived."""
        tool = self.tool
        offered = json.dumps([body.get("tools"), _items_with_tools(body)])
        if tool is None or f'"{tool.name}"' not in offered:
            return None
        return None if tool.result in json.dumps(body) else tool


def _items_with_tools(body: Json) -> list[Json]:
    items = body.get("input")
    return [each for each in items if "tools" in each] if isinstance(items, list) else []


def _answer(path: str, body: Json, tool: Tool | None) -> Answer:
    streams = bool(body.get("stream"))
    if path.endswith("/messages"):
        return _stream(_message_events(tool)) if streams else json_reply(_message(tool))
    if path.endswith("/count_tokens"):
        return json_reply({"input_tokens": 7})
    if path.endswith("/chat/completions"):
        return _stream(_chat_events(tool)) if streams else json_reply(_chat(tool))
    if path.endswith("/responses"):
        return _stream(_response_events(tool)) if streams else json_reply(_response(_item(tool)))
    if path.endswith(":streamGenerateContent"):
        return _stream([b"data: " + json.dumps(_gemini(body, tool)).encode() + b"\r\n\r\n"])
    if path.endswith(":generateContent"):
        return json_reply(_gemini(body, tool))
    if path.endswith(":countTokens"):
        return json_reply({"totalTokens": 7})
    if path.endswith("/converse"):
        return json_reply(_converse())
    return json_reply({"error": {"message": f"no such path {path}", "type": "not_found_error"}}, 404)


def _stream(events: Iterable[bytes]) -> Stream:
    return Stream(tuple(events), gated=False)


def _message(tool: Tool | None) -> Json:
    if tool is None:
        return message(MODEL, TEXT)
    block = {"type": "tool_use", "id": "toolu_1", "name": tool.name, "input": tool.arguments}
    return message(MODEL, content=[block], stop_reason="tool_use")


def _message_events(tool: Tool | None) -> Iterable[bytes]:
    return message_events(MODEL) if tool is None else tool_events(MODEL, tool.name, tool.arguments)


def _chat_message(tool: Tool | None) -> Json:
    if tool is None:
        return {"role": "assistant", "content": TEXT}
    function = {"name": tool.name, "arguments": json.dumps(tool.arguments)}
    call = {"index": 0, "id": "call_1", "type": "function", "function": function}
    return {"role": "assistant", "content": None, "tool_calls": [call]}


def _chat(tool: Tool | None) -> Json:
    choice = {"index": 0, "message": _chat_message(tool), "finish_reason": "tool_calls" if tool else "stop"}
    return {**_CHAT, "object": "chat.completion", "choices": [choice], "usage": _USAGE}


_CHAT = {"id": "c1", "created": 1, "model": MODEL}
_USAGE = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}


def _chat_events(tool: Tool | None) -> Iterator[bytes]:
    reason = "tool_calls" if tool else "stop"
    for delta, finish in ((_chat_message(tool), None), ({}, reason)):
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        usage = {"usage": _USAGE} if finish else {}
        chunk = {**_CHAT, "object": "chat.completion.chunk", "choices": [choice], **usage}
        yield b"data: " + json.dumps(chunk).encode() + b"\n\n"
    yield b"data: [DONE]\n\n"


def _item(tool: Tool | None) -> Json:
    if tool is None:
        part = {"type": "output_text", "text": TEXT, "annotations": []}
        return {"id": "m1", "type": "message", "role": "assistant", "status": "completed", "content": [part]}
    call = {"id": "f1", "call_id": "call_1", "status": "completed", "name": tool.name}
    if isinstance(tool.input, str):
        return {**call, "type": "custom_tool_call", "input": tool.input}
    return {**call, "type": "function_call", "arguments": json.dumps(tool.arguments)}


def _response(*output: Json) -> Json:
    usage = {
        "input_tokens": 5,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": 2,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 7,
    }
    return {
        "id": "r1", "object": "response", "created_at": 1, "model": MODEL, "output": list(output),
        "status": "completed" if output else "in_progress", "usage": usage if output else None,
        "parallel_tool_calls": True, "tool_choice": "auto", "tools": [],
    }  # fmt: skip


def _response_events(tool: Tool | None) -> Iterator[bytes]:
    item = _item(tool)
    events: list[Json] = [
        {"type": "response.created", "response": _response()},
        *(_call_events(item) if tool else _text_events(item)),
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": _response(item)},
    ]
    for number, each in enumerate(events):
        yield event(each.pop("type"), sequence_number=number, **each)


def _text_events(item: Json) -> Iterator[Json]:
    place = {"item_id": item["id"], "output_index": 0, "content_index": 0}
    (part,) = item["content"]
    yield {"type": "response.output_item.added", "output_index": 0, "item": {**item, "content": []}}
    yield {"type": "response.content_part.added", **place, "part": {**part, "text": ""}}
    yield {"type": "response.output_text.delta", **place, "delta": TEXT, "logprobs": []}
    yield {"type": "response.output_text.done", **place, "text": TEXT, "logprobs": []}
    yield {"type": "response.content_part.done", **place, "part": part}


def _call_events(item: Json) -> Iterator[Json]:
    place = {"item_id": item["id"], "output_index": 0}
    key, kind = (
        ("arguments", "function_call_arguments")
        if "arguments" in item
        else ("input", "custom_tool_call_input")
    )
    yield {"type": "response.output_item.added", "output_index": 0, "item": {**item, key: ""}}
    yield {"type": f"response.{kind}.delta", **place, "delta": item[key]}
    yield {"type": f"response.{kind}.done", **place, key: item[key]}


def _gemini(body: Json, tool: Tool | None) -> Json:
    part: Json = {"functionCall": {"name": tool.name, "args": tool.arguments}} if tool else {"text": TEXT}
    if schema := body.get("generationConfig", {}).get("responseJsonSchema"):
        part = {"text": json.dumps(_example(schema))}
    candidate = {"content": {"role": "model", "parts": [part]}, "finishReason": "STOP", "index": 0}
    usage = {"promptTokenCount": 5, "candidatesTokenCount": 2, "totalTokenCount": 7}
    return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": MODEL}


def _example(schema: Json) -> Any:
    """Return a value that fits a JSON schema of a structured answer."""
    if "enum" in schema:
        return schema["enum"][0]
    if "properties" in schema:
        return {name: _example(each) for name, each in schema["properties"].items()}
    examples = {"array": [], "boolean": True, "integer": 1, "number": 1}
    return examples.get(str(schema.get("type")).lower(), TEXT)


def _converse() -> Json:
    return {
        "output": {"message": {"role": "assistant", "content": [{"text": TEXT}]}},
        "stopReason": "end_turn",
        "usage": {"inputTokens": 5, "outputTokens": 2, "totalTokens": 7},
        "metrics": {"latencyMs": 1},
    }
