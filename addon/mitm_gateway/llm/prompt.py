"""A request of any conversation API in one form, and its digest: the basis for comparing two requests."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from . import bedrock_converse, gemini
from .shapes import as_list, as_object

# Members that move from request to request and are no part of the prompt.
_MARKS = ("cache_control", "cachePoint")
_NO_SETTINGS = frozenset({
    "messages", "input", "prompt", "system", "instructions", "tools", "model", "stream", "metadata", "diagnostics",
    "prompt_cache_options", "previous_response_id", "conversation", "client_metadata", "stream_options",
})  # fmt: skip
# Claude Code's first system block; it rotates, and Anthropic's API leaves it out of the prompt.
_BILLING = "x-anthropic-billing-header:"
_SYSTEM_ROLES = ("system", "developer")
_MODEL_ROLES = ("assistant", "model")
_ITEM_ROLES = {
    "function_call_output": "tool",
    "custom_tool_call_output": "tool",
    "local_shell_call_output": "tool",
}
_TEXTS = ("text", "input_text", "output_text")


class Message(NamedTuple):
    """A message: its role and its text; other parts are JSON."""

    role: str
    text: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """The parts of a request that make up its prompt, in the order in which providers cache them."""

    model: str | None
    tools: tuple[tuple[str, str], ...]
    """Names and definitions."""
    system: str
    """The system prompt, with the system and developer messages at the beginning of the conversation."""
    messages: tuple[Message, ...]
    settings: tuple[tuple[str, str], ...]
    continues: str | None = None
    """The stored response whose conversation this request continues (`previous_response_id`)."""
    billing: str = ""
    """Claude Code's billing line, which is not part of the prompt at Anthropic."""

    def digest(self) -> Digest:
        """Return the digest of this prompt."""
        return Digest(
            self.model,
            tuple((name, hash(text)) for name, text in self.tools),
            hash(self.system),
            array("q", map(hash, self.messages)),
            next((at for at, each in enumerate(self.messages, 1) if each.role in _MODEL_ROLES), 0),
            tuple((name, hash(text)) for name, text in self.settings),
            self.continues,
            hash(self.billing),
        )


@dataclass(frozen=True, slots=True)
class Digest:
    """Hashes of a prompt's parts, valid within this process: 8 bytes a message instead of its text."""

    model: str | None
    tools: tuple[tuple[str, int], ...]
    system: int
    messages: array[int]
    first_reply: int
    """The number of messages up to the first one of the model; 0 if it has none."""
    settings: tuple[tuple[str, int], ...]
    continues: str | None
    billing: int


def prompt_of(body: Any) -> Prompt | None:
    """Return the prompt of a request's JSON body; None if it is not a conversation. Never raises on odd data."""
    if not isinstance(body, Mapping):
        return None
    body = gemini.body(bedrock_converse.body(body))
    found = body.get("messages", body.get("input", body.get("prompt")))
    if isinstance(found, str):
        found = [{"role": "user", "content": found}]
    if not isinstance(found, list):
        return None
    messages = [_message(each) for each in found]
    leading = next((at for at, each in enumerate(messages) if each.role not in _SYSTEM_ROLES), len(messages))
    blocks = [*_texts(body.get("system")), *_texts(body.get("instructions"))]
    billing = "\n".join(text for text in blocks if text.startswith(_BILLING))
    system = [text for text in blocks if not text.startswith(_BILLING)]
    continues = body.get("previous_response_id") or as_object(body.get("conversation")).get("id")
    return Prompt(
        model=_name(body.get("model")),
        tools=tuple(_tool(tool) for tool in as_list(body.get("tools"))),
        system="\n".join([*system, *(message.text for message in messages[:leading])]),
        messages=tuple(messages[leading:]),
        settings=tuple((key, _json(value)) for key, value in body.items() if key not in _NO_SETTINGS),
        continues=continues if isinstance(continues, str) else None,
        billing=billing,
    )


def _name(value: Any) -> str | None:
    name = value.get("id") if isinstance(value, Mapping) else value
    return name if isinstance(name, str) else None


def _message(value: Any) -> Message:
    message = as_object(value)
    kind = message.get("type")
    role = message.get("role") or _ITEM_ROLES.get(str(kind)) or ("assistant" if kind else "user")
    others = {key: each for key, each in message.items() if key not in ("role", "content", "parts", *_MARKS)}
    others.pop("type", None) if kind == "message" else None
    texts = [*_texts(message.get("content")), *([_json(others)] if others else [])]
    return Message(str(role), "\n".join(texts) if message else _json(value))


def _texts(content: Any) -> Iterator[str]:
    """Yield the parts of a content: text as it is, anything else as JSON."""
    if isinstance(content, str):
        yield content
    elif isinstance(content, list):
        yield from _part_texts(content)
    elif content is not None:
        yield _json(content)


def _part_texts(parts: Iterable[Any]) -> Iterator[str]:
    for part in parts:
        if not isinstance(part, Mapping):
            yield part if isinstance(part, str) else _json(part)
        elif "text" in part and (part.get("type") in _TEXTS or part.keys() <= {"text", *_MARKS}):
            yield str(part["text"])
        elif "cachePoint" not in part:
            yield _json(part)


def _tool(tool: Any) -> tuple[str, str]:
    tool = as_object(tool)
    inner = as_object(tool.get("function")) or tool
    return str(inner.get("name") or tool.get("type") or "?"), _json(tool)


def _json(value: Any) -> str:
    try:
        return json.dumps(_plain(value), ensure_ascii=False, sort_keys=True)
    except (TypeError, ValueError, RecursionError):
        return repr(type(value))


def _plain(value: Any) -> Any:
    """Return a value without the marks of the cache, at the depths at which APIs write them."""
    if not isinstance(value, Mapping):
        return value
    plain = {str(key): each for key, each in value.items() if key not in _MARKS}
    if isinstance(plain.get("content"), list):
        plain["content"] = [_plain(part) for part in plain["content"]]
    return plain
