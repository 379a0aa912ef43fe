"""Gemini's API in the form of the Messages API, so that one reader serves both.

A part has no `type`: the member that it has names its kind. Anything that is not Gemini is returned as it is.
Shapes: https://ai.google.dev/api/generate-content.
"""

from collections.abc import Mapping
from typing import Any

from .shapes import Data, as_list, as_object

_REQUEST = {"contents": "messages", "systemInstruction": "system", "system_instruction": "system"}
_RESPONSE = {"candidates", "usageMetadata", "modelVersion", "promptFeedback"}


def body(value: Data) -> Data:
    """Convert a request or a response."""
    if "contents" in value:
        return _request(value)
    if value.keys() & _RESPONSE and "content" not in value:
        return _response(value)
    return value


def _request(value: Data) -> Data:
    found = {_REQUEST.get(name, name): item for name, item in value.items()}
    if isinstance(messages := found["messages"], list):
        found["messages"] = [_message(message) for message in messages]
    if "system" in found:
        found["system"] = as_object(found["system"]).get("parts", found["system"])
    if isinstance(tools := found.get("tools"), list):
        found["tools"] = [each for tool in tools for each in _tools(as_object(tool))]
    return found


def _message(value: Any) -> Any:
    if not (message := as_object(value)):
        return value
    return {**message, "role": message.get("role", "user"), "content": message.get("parts")}


def _tools(tool: Data) -> list[Any]:
    named = as_list(tool.get("functionDeclarations", tool.get("function_declarations")))
    built_in = [{"name": name, "parameters": value} for name, value in tool.items() if name[:8] != "function"]
    return [*named, *built_in]


def _response(value: Data) -> Data:
    first = as_object(next(iter(as_list(value.get("candidates"))), None))
    blocked = as_object(value.get("promptFeedback")).get("blockReason")
    found = {
        "model": value.get("modelVersion"),
        "content": as_object(first.get("content")).get("parts"),
        "stop_reason": first.get("finishReason") or blocked,
        "usage": value.get("usageMetadata"),
        "error": value.get("error"),
    }
    return {name: item for name, item in found.items() if item}


def part(value: Data) -> Data:
    """Convert a part of a message."""
    if "type" in value:
        return value
    match value:
        case {"functionCall": Mapping() as call}:
            return {
                "type": "tool_use",
                "id": call.get("id"),
                "name": call.get("name"),
                "input": call.get("args"),
            }
        case {"functionResponse": Mapping() as result}:
            name = result.get("id") or result.get("name")
            return {"type": "tool_result", "tool_use_id": name, "content": [result.get("response")]}
        case {"inlineData": Mapping() as media}:
            return _media(media, data=media.get("data"))
        case {"fileData": Mapping() as media}:
            return _media(media, url=media.get("fileUri"))
        case {"text": text, "thought": True}:
            return {"type": "thinking", "thinking": text}
        case {"text": text} if value.keys() <= {"text", "thought", "thoughtSignature"}:
            return {"type": "text", "text": text}
    return value


def _media(media: Data, **place: Any) -> Data:
    media_type = media.get("mimeType")
    kind = "image" if str(media_type).startswith("image/") else "file"
    return {"type": kind, "source": {"media_type": media_type, **place}}


def is_chunk(event: Data) -> bool:
    """Return whether an event is a chunk of a response."""
    return "type" not in event and bool(event.keys() & _RESPONSE)
