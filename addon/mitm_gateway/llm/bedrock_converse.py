"""Bedrock's Converse API in the form of the Messages API, so that one reader serves both.

A part has no `type`: it is an object whose only key names its kind. Anything that is not Converse is returned as it is.
Shapes: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_Converse.html and …_ConverseStream.html.
"""

from collections.abc import Mapping
from typing import Any

from .shapes import Data, as_list, as_object

_MEDIA = {"image", "document", "video", "audio"}


def body(value: Data) -> Data:
    """Convert a request or a response."""
    if "toolConfig" not in value and "output" not in value:
        return value
    tools, message = (
        as_object(value.get("toolConfig")).get("tools"),
        as_object(value.get("output")).get("message"),
    )
    if isinstance(tools, list):
        rest = {name: item for name, item in value.items() if name != "toolConfig"}
        return {**rest, "tools": [as_object(tool).get("toolSpec", tool) for tool in tools]}
    if isinstance(message, Mapping):
        return {**message, "stop_reason": value.get("stopReason"), "usage": _usage(value.get("usage"))}
    return value


def _usage(value: Any) -> Data:
    """Return token counts with the longer part of a cache where the Messages API has it."""
    counts = dict(as_object(value))
    for each in map(as_object, as_list(counts.get("cacheDetails"))):
        if each.get("ttl") == "1h":
            counts["cache_creation"] = {"ephemeral_1h_input_tokens": each.get("inputTokens")}
    return counts


def part(value: Data) -> Data:
    """Convert a part of a message."""
    if "type" in value or len(value) != 1:
        return value
    [(kind, content)] = value.items()
    inner = as_object(content)
    match kind:
        case "text" | "json":
            return {"type": "text", "text": content}
        case "toolUse":
            return {**inner, "type": "tool_use", "id": inner.get("toolUseId")}
        case "toolResult":
            failed = inner.get("status") == "error"
            return {**inner, "type": "tool_result", "tool_use_id": inner.get("toolUseId"), "is_error": failed}
        case "reasoningContent" if "redactedContent" in inner:
            return {"type": "redacted_thinking", "data": inner["redactedContent"]}
        case "reasoningContent":
            return {"type": "thinking", "thinking": as_object(inner.get("reasoningText")).get("text")}
        case _ if kind in _MEDIA:
            return _media(kind, inner)
    return value


def _media(kind: str, value: Data) -> Data:
    source = as_object(value.get("source"))
    where = as_object(source.get("s3Location")).get("uri")
    shown = {"media_type": value.get("format"), "data": source.get("bytes"), "url": where}
    return {"type": kind, "title": value.get("name"), "source": shown}


def events(event: Any) -> list[Any]:
    """Convert an event to events of the Messages API; return an event of another API as it is."""
    content = as_object(event)
    index = content.get("contentBlockIndex")
    match content.get("type"):
        case "messageStart":
            return [{"type": "message_start", "message": {"role": content.get("role")}}]
        case "contentBlockStart":
            block = part(as_object(content.get("start")))
            return [{"type": "content_block_start", "index": index, "content_block": block}]
        case "contentBlockDelta":
            delta = _delta(as_object(content.get("delta")))
            return [{"type": "content_block_delta", "index": index, "delta": delta}]
        case "messageStop":
            delta = {"stop_reason": content.get("stopReason")}
            return [{"type": "message_delta", "delta": delta}, {"type": "message_stop"}]
        case "metadata":
            return [{"type": "message_delta", "usage": _usage(content.get("usage"))}]
    return [event]


def _delta(delta: Data) -> Data:
    if "text" in delta:
        return {"type": "text_delta", "text": delta["text"]}
    if "toolUse" in delta:
        return {"type": "input_json_delta", "partial_json": as_object(delta["toolUse"]).get("input")}
    return {"type": "thinking_delta", "thinking": as_object(delta.get("reasoningContent")).get("text")}
