"""Assembly of a stream's events into the response that the same API gives without streaming.

Events may be cut off, out of order or malformed; the usable ones are used.
"""

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from ..text.bounded_json import parsed
from . import gemini
from .shapes import Data, as_list, as_object

_Object: TypeAlias = dict[str, Any]

# Deltas of the Messages API: the member that has the piece, and the type of its block.
_PIECES = {
    "text_delta": ("text", "text"),
    "thinking_delta": ("thinking", "thinking"),
    "input_json_delta": ("partial_json", "tool_use"),
}
# Events of the Responses API: the member of the item that the piece extends.
_GROWING = {
    "response.output_text.delta": "text",
    "response.refusal.delta": "refusal",
    "response.function_call_arguments.delta": "arguments",
    "response.custom_tool_call_input.delta": "arguments",
    "response.reasoning_summary_text.delta": "reasoning",
    "response.reasoning_text.delta": "reasoning",
}


class Assembly:
    """A response in the making. Text is collected in lists and joined once: streams have many small events."""

    def __init__(self) -> None:
        self._response: _Object = {}
        self._blocks: dict[Any, _Object] = {}
        self._texts: dict[tuple[Any, str], list[str]] = {}
        self._is_complete = False
        self._usage: _Object = {}
        self._choice: _Object | None = None

    def add(self, events: Iterable[Any]) -> None:
        """Add further events."""
        for event in events:
            if not isinstance(event, Mapping):
                continue
            kind = event.get("type")
            if kind == "content_block_delta":
                self._add_delta(event)
            elif "choices" in event:
                self._add_chunk(event)
            elif gemini.is_chunk(event):
                self._add_gemini_chunk(event)
            elif isinstance(kind, str) and kind.startswith("response."):
                self._add_response_event(kind, event)
            else:
                self._add_message_event(kind, event)

    def response(self) -> tuple[_Object, bool]:
        """Return the response so far, and whether the stream has announced its end."""
        for (key, name), pieces in self._texts.items():
            block = self._blocks.setdefault(key, {})
            block[name] = str(block.get(name) or "") + "".join(pieces)
        blocks = [_whole_input(block) for block in self._blocks.values()]
        if self._usage:
            self._response["usage"] = self._usage
        if self._choice is not None:
            self._response["choices"] = [{"message": _chat_message(self._blocks), **self._choice}]
        elif "content" in self._response:
            self._response["content"] = blocks
        elif blocks and not self._response.get("output"):
            self._response["output"] = [_response_item(block) for block in blocks]
        return self._response, self._is_complete

    def _grow(self, key: Any, name: str, text: Any) -> None:
        if isinstance(text, str):
            self._texts.setdefault((key, name), []).append(text)

    # ---- Messages API ----

    def _add_delta(self, event: Data) -> None:
        delta = event.get("delta")
        if not isinstance(delta, Mapping):
            return
        found = _PIECES.get(str(delta.get("type")))
        self._response.setdefault("content", [])
        if found:
            name, block_type = found
            key = str(event.get("index"))
            # Bedrock's Converse does not announce text blocks, and an announcement may be lost.
            self._blocks.setdefault(key, {"type": block_type})
            self._grow(key, name, delta.get(name))

    def _add_message_event(self, kind: Any, event: Data) -> None:
        if kind == "message_start" and isinstance(event.get("message"), Mapping):
            self._response.update(event["message"])
            self._response["content"] = []
            self._usage = _set(event["message"].get("usage"))
        elif kind == "content_block_start" and isinstance(event.get("content_block"), Mapping):
            block = dict(event["content_block"])
            self._response.setdefault("content", [])
            self._blocks[str(event.get("index"))] = block
        elif kind == "message_delta":
            self._response.update(_set(event.get("delta")))
            self._usage.update(_set(event.get("usage")))
            if "diagnostics" in event:
                self._response["diagnostics"] = event["diagnostics"]
        elif kind == "message_stop":
            self._is_complete = True
        elif kind == "error" or "error" in event:
            self._response["error"] = event.get("error") or dict(event)
            self._is_complete = True

    # ---- chat completions ----

    def _add_chunk(self, chunk: Data) -> None:
        self._response.update({key: chunk[key] for key in ("model", "usage", "error") if chunk.get(key)})
        if self._choice is None:
            self._choice = {}
        for choice in as_list(chunk["choices"]):
            if not isinstance(choice, Mapping):
                continue
            if choice.get("finish_reason"):
                self._choice["finish_reason"] = choice["finish_reason"]
                self._is_complete = True
            delta = _set(choice.get("delta"))
            for name in ("content", "reasoning_content", "reasoning", "refusal"):
                self._grow("message", name, delta.get(name))
            for call in as_list(delta.get("tool_calls")):
                self._add_call(_set(call))

    def _add_call(self, call: dict[str, Any]) -> None:
        key = ("call", str(call.get("index")))
        function = _set(call.get("function"))
        block = self._blocks.setdefault(key, {})
        block["id"] = call.get("id") or block.get("id")
        self._grow(key, "name", function.get("name"))
        self._grow(key, "arguments", function.get("arguments"))

    # ---- Gemini ----

    def _add_gemini_chunk(self, chunk: Data) -> None:
        response = dict(gemini.body(chunk))
        self._usage.update(_set(response.pop("usage", None)))
        for part in as_list(response.pop("content", None)):
            self._add_part(gemini.part(_set(part)))
        self._response.setdefault("content", [])
        self._response.update(response)
        self._is_complete |= "stop_reason" in response or "error" in response

    def _add_part(self, part: Data) -> None:
        """Add a part; text is appended to the part before it if that is of the same kind."""
        kind, last = part.get("type"), next(reversed(self._blocks), None)
        name = {"text": "text", "thinking": "thinking"}.get(str(kind))
        if name is None or last is None or self._blocks[last].get("type") != kind:
            last = f"part {len(self._blocks)}"
            self._blocks[last] = {key: value for key, value in part.items() if key != name}
        if name is not None:
            self._grow(last, name, part.get(name))

    # ---- Responses API ----

    def _add_response_event(self, kind: str, event: Data) -> None:
        key = ("item", str(event.get("output_index")))
        if kind in _GROWING:
            self._grow(key, _GROWING[kind], event.get("delta"))
        elif kind == "response.output_item.added":
            self._blocks[key] = _set(event.get("item"))
        elif isinstance(event.get("response"), Mapping):
            self._response.update(event["response"])
            self._is_complete |= kind in ("response.completed", "response.incomplete", "response.failed")


def _set(value: Any) -> _Object:
    """Return the members of an object that have a value."""
    return {name: item for name, item in as_object(value).items() if item is not None}


def _whole_input(block: _Object) -> _Object:
    """Return a tool call with its input parsed, or as the text received so far."""
    text = block.pop("partial_json", None)
    if not isinstance(text, str):
        return block
    try:
        return {**block, "input": parsed(text)}
    except (ValueError, RecursionError):
        return {**block, "input": text}


def _chat_message(blocks: Mapping[Any, _Object]) -> _Object:
    message = {"role": "assistant", **blocks.get("message", {})}
    calls = [
        {"id": call.get("id"), "function": {"name": call.get("name"), "arguments": call.get("arguments", "")}}
        for key, call in blocks.items()
        if key != "message"
    ]
    return {**message, "tool_calls": calls} if calls else message


def _response_item(block: _Object) -> _Object:
    """Return an unfinished item in the form of a finished one."""
    if "reasoning" in block:
        return {"type": "reasoning", "summary": [{"type": "summary_text", "text": block["reasoning"]}]}
    if "arguments" in block or block.get("type") not in ("message", None):
        return block
    kind = "refusal" if "refusal" in block else "output_text"
    text = block.get("text", block.get("refusal", ""))
    return {**block, "type": "message", "role": "assistant", "content": [{"type": kind, "text": text}]}
