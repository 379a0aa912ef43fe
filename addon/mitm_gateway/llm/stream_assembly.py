"""The answer that a stream's events make, in the form in which the same API answers without streaming.

Events may be cut off, out of order or rubbish: what can be used is used.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from ..text.bounded_json import parsed

Answer: TypeAlias = dict[str, Any]

# Where the events of the Messages API have the pieces of a block, and of what type such a block is.
_PIECES = {
    "text_delta": ("text", "text"),
    "thinking_delta": ("thinking", "thinking"),
    "input_json_delta": ("partial_json", "tool_use"),
}
# Which part of an item of the Responses API grows by which event.
_GROWING = {
    "response.output_text.delta": "text",
    "response.refusal.delta": "refusal",
    "response.function_call_arguments.delta": "arguments",
    "response.custom_tool_call_input.delta": "arguments",
    "response.reasoning_summary_text.delta": "reasoning",
    "response.reasoning_text.delta": "reasoning",
}


class Assembly:
    """Puts an answer together. Text is collected in lists and joined once: streams have many small events."""

    def __init__(self) -> None:
        self._answer: Answer = {}
        self._blocks: dict[Any, Answer] = {}
        self._texts: dict[tuple[Any, str], list[str]] = {}
        self._is_complete = False
        self._usage: Answer = {}
        self._choice: Answer | None = None

    def add(self, events: Iterable[Any]) -> None:
        """Takes further events."""
        for event in events:
            if not isinstance(event, Mapping):
                continue
            kind = event.get("type")
            if kind == "content_block_delta":
                self._add_delta(event)
            elif "choices" in event:
                self._add_chunk(event)
            elif isinstance(kind, str) and kind.startswith("response."):
                self._add_response_event(kind, event)
            else:
                self._add_message_event(kind, event)

    def answer(self) -> tuple[Answer, bool]:
        """The answer as far as it came, and whether the stream said that this is its end."""
        for (key, name), pieces in self._texts.items():
            block = self._blocks.setdefault(key, {})
            block[name] = str(block.get(name) or "") + "".join(pieces)
        blocks = [_whole_input(block) for block in self._blocks.values()]
        if self._usage:
            self._answer["usage"] = self._usage
        if self._choice is not None:
            self._answer["choices"] = [{"message": _chat_message(self._blocks), **self._choice}]
        elif "content" in self._answer:
            self._answer["content"] = blocks
        elif blocks and not self._answer.get("output"):
            self._answer["output"] = [_response_item(block) for block in blocks]
        return self._answer, self._is_complete

    def _grow(self, key: Any, name: str, text: Any) -> None:
        if isinstance(text, str):
            self._texts.setdefault((key, name), []).append(text)

    # ---- Messages API ----

    def _add_delta(self, event: Mapping[str, Any]) -> None:
        delta = event.get("delta")
        if not isinstance(delta, Mapping):
            return
        found = _PIECES.get(str(delta.get("type")))
        self._answer.setdefault("content", [])
        if found:
            name, block_type = found
            key = str(event.get("index"))
            # Bedrock's Converse does not announce a block of text, and an announcement may be lost.
            self._blocks.setdefault(key, {"type": block_type})
            self._grow(key, name, delta.get(name))

    def _add_message_event(self, kind: Any, event: Mapping[str, Any]) -> None:
        if kind == "message_start" and isinstance(event.get("message"), Mapping):
            self._answer.update(event["message"])
            self._answer["content"] = []
            self._usage = _known(event["message"].get("usage"))
        elif kind == "content_block_start" and isinstance(event.get("content_block"), Mapping):
            block = dict(event["content_block"])
            self._answer.setdefault("content", [])
            self._blocks[str(event.get("index"))] = block
        elif kind == "message_delta":
            self._answer.update(_known(event.get("delta")))
            self._usage.update(_known(event.get("usage")))
        elif kind == "message_stop":
            self._is_complete = True
        elif kind == "error" or "error" in event:
            self._answer["error"] = event.get("error") or dict(event)
            self._is_complete = True

    # ---- chat completions ----

    def _add_chunk(self, chunk: Mapping[str, Any]) -> None:
        self._answer.update({key: chunk[key] for key in ("model", "usage", "error") if chunk.get(key)})
        if self._choice is None:
            self._choice = {}
        for choice in _list(chunk["choices"]):
            if not isinstance(choice, Mapping):
                continue
            if choice.get("finish_reason"):
                self._choice["finish_reason"] = choice["finish_reason"]
                self._is_complete = True
            delta = _known(choice.get("delta"))
            for name in ("content", "reasoning_content", "reasoning", "refusal"):
                self._grow("message", name, delta.get(name))
            for call in _list(delta.get("tool_calls")):
                self._add_call(_known(call))

    def _add_call(self, call: dict[str, Any]) -> None:
        key = ("call", str(call.get("index")))
        function = _known(call.get("function"))
        block = self._blocks.setdefault(key, {})
        block["id"] = call.get("id") or block.get("id")
        self._grow(key, "name", function.get("name"))
        self._grow(key, "arguments", function.get("arguments"))

    # ---- Responses API ----

    def _add_response_event(self, kind: str, event: Mapping[str, Any]) -> None:
        key = ("item", str(event.get("output_index")))
        if kind in _GROWING:
            self._grow(key, _GROWING[kind], event.get("delta"))
        elif kind == "response.output_item.added":
            self._blocks[key] = _known(event.get("item"))
        elif isinstance(event.get("response"), Mapping):
            self._answer.update(event["response"])
            self._is_complete |= kind in ("response.completed", "response.incomplete", "response.failed")


def _known(value: Any) -> dict[str, Any]:
    return (
        {name: item for name, item in value.items() if item is not None} if isinstance(value, Mapping) else {}
    )


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _whole_input(block: Answer) -> Answer:
    """A tool call with its input read, or as the text that has come of it."""
    text = block.pop("partial_json", None)
    if not isinstance(text, str):
        return block
    try:
        return {**block, "input": parsed(text)}
    except (ValueError, RecursionError):
        return {**block, "input": text}


def _chat_message(blocks: Mapping[Any, Answer]) -> Answer:
    message = {"role": "assistant", **blocks.get("message", {})}
    calls = [
        {"id": call.get("id"), "function": {"name": call.get("name"), "arguments": call.get("arguments", "")}}
        for key, call in blocks.items()
        if key != "message"
    ]
    return {**message, "tool_calls": calls} if calls else message


def _response_item(block: Answer) -> Answer:
    """An item that is still growing, in the form of a finished one."""
    if "reasoning" in block:
        return {"type": "reasoning", "summary": [{"type": "summary_text", "text": block["reasoning"]}]}
    if "arguments" in block or block.get("type") not in ("message", None):
        return block
    kind = "refusal" if "refusal" in block else "output_text"
    text = block.get("text", block.get("refusal", ""))
    return {**block, "type": "message", "role": "assistant", "content": [{"type": kind, "text": text}]}
