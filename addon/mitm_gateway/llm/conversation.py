"""The text of the LLM view: a request or a response of a conversation, of any API in the table.

If a body is incomplete, damaged or hostile, its readable part is shown and a note describes the rest. Nothing here
raises on malformed data.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from ..text.bounded_json import parsed
from ..text.printable import MAX_KEYS, compact, folded, indented, listed, size, visible
from ..wire import aws_eventstream
from ..wire.addresses import normal_path
from . import bedrock_converse
from .apis import identify
from .read_body import read

# Prompts are folded early, responses late; the raw view has everything.
FOLD_SYSTEM, FOLD_PART, FOLD_RESPONSE = 1_500, 4_000, 100_000
# Text beyond this is omitted from the middle: the system prompt and the newest messages matter most. Each line counts
# as some characters, because it takes time. The second bound is for the parts of one message.
MAX_TEXT, MAX_PARTS_TEXT, _LINE_WEIGHT = 1 << 20, 1 << 18, 60
# The most tool names, and the most stop reasons.
MAX_TOOLS, MAX_CHOICES = 500, 20

_KINDS = {"application/json", "text/event-stream", aws_eventstream.CONTENT_TYPE}


def is_conversation(host: str, method: str, target: str, content_type: str) -> bool:
    """Return True if the LLM view is the default for a request or a response of this endpoint."""
    path = normal_path(target.partition("?")[0])
    return _kind(content_type) in _KINDS and identify(host, method, path).api.is_conversation


def render(data: bytes, content_type: str, now: Callable[[], float] = time.thread_time) -> str:
    """Return the conversation in a body as text; `now` is a clock of CPU time."""
    notes: list[str] = []
    body = read(data, _kind(content_type), notes, now)
    try:
        sections = [*_body(body), *(f"note: {note}" for note in notes)]
    except RecursionError:
        sections = ["note: nested too deep to show"]
    return visible("\n\n".join(filter(None, sections)))


def _kind(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def _body(body: Any) -> Iterator[str]:
    if isinstance(body, str):
        yield folded(body, FOLD_PART)
    elif isinstance(body, list):
        yield folded(compact(body[:FOLD_PART]), FOLD_PART)
    elif not isinstance(body, Mapping):
        yield folded(compact(body), FOLD_PART) if body is not None else ""
    elif _is_request(body):
        yield from _request(bedrock_converse.body(body))
    else:
        yield from _response(bedrock_converse.body(body))


def _is_request(body: Mapping[str, Any]) -> bool:
    return "messages" in body or "input" in body or ("prompt" in body and "model" in body)


_OWN_SECTIONS = {"messages", "input", "system", "instructions", "tools", "model"}


def _request(body: Mapping[str, Any]) -> Iterator[str]:
    settings = [f"model: {compact(body['model'])}"] if "model" in body else []
    others = {key: value for key, value in islice(body.items(), MAX_KEYS) if key not in _OWN_SECTIONS}
    settings += [f"{key}: {folded(compact(value), 200)}" for key, value in others.items()]
    if settings:
        yield "\n".join(settings)
    for key in ("system", "instructions"):
        if body.get(key):
            parts = list(_parts(body[key], FOLD_SYSTEM))
            yield _section(f"system ({_length(body[key])})", parts)
    if isinstance(body.get("tools"), list) and body["tools"]:
        names = ", ".join(map(_tool_name, body["tools"][:MAX_TOOLS]))
        yield _section(f"tools ({len(body['tools'])})", [folded(names, FOLD_PART)])
    messages = body.get("messages", body.get("input"))
    if not isinstance(messages, list):
        messages = [{"role": "user", "content": messages}]
    yield from _ends(messages, lambda message: _message(message, FOLD_PART), MAX_TEXT, "messages")


def _ends(items: Sequence[Any], render: Callable[[Any], str], room: int, name: str) -> Iterator[str]:
    """Yield each item as text; if they exceed the room, the first and the last ones."""
    head: list[str] = []
    tail: list[str] = []
    first, last = 0, len(items)
    for texts, is_tail, left in ((tail, True, room * 3 // 4), (head, False, room // 4)):
        while first < last and left > 0:
            text = render(items[last - 1] if is_tail else items[first])
            first, last = (first, last - 1) if is_tail else (first + 1, last)
            left -= len(text) + _LINE_WEIGHT * (text.count("\n") + 2)
            texts.append(text)
    yield from head
    if first < last:
        yield f"… {last - first:,} {name} omitted"
    yield from reversed(tail)


def _length(value: Any) -> str:
    parts = value if isinstance(value, list) else [{"text": value}]
    texts = [part.get("text") for part in parts if isinstance(part, Mapping)]
    return size(sum(len(text) for text in texts if isinstance(text, str)))


def _tool_name(tool: Any) -> str:
    tool = _known(tool)
    name = tool.get("name") or _known(tool.get("function")).get("name") or tool.get("type") or "?"
    return compact(name)


def _message(message: Any, limit: int) -> str:
    message = _known(message) if isinstance(message, Mapping) else {"content": message}
    role = compact(message.get("role") or message.get("type") or "message")
    if "role" not in message and "content" not in message:
        return _part(message, limit)
    parts = []
    if reasoning := message.get("reasoning_content") or message.get("reasoning"):
        parts.append(_titled("thinking", compact(reasoning), limit))
    content = list(_parts(message.get("content"), limit))
    if role == "tool":
        content = [f"tool result {message.get('tool_call_id', '')}".rstrip() + ":", *map(indented, content)]
    parts += content
    if message.get("refusal"):
        parts.append(_titled("refusal", compact(message["refusal"]), limit))
    parts = [part for part in parts if part]
    calls = _list(message.get("tool_calls"))
    parts += _ends(calls, lambda call: _chat_call(call, limit), MAX_PARTS_TEXT, "calls")
    return _section(role, parts or ["(empty)"])


def _section(title: str, parts: Iterable[str]) -> str:
    return "\n".join([f"{title}:", *map(indented, parts)])


def _parts(content: Any, limit: int) -> Iterator[str]:
    if isinstance(content, str):
        yield folded(content, limit)
    elif isinstance(content, list):
        yield from _ends(content, lambda part: _part(part, limit), MAX_PARTS_TEXT, "parts")
    elif content is not None:
        yield folded(compact(content), limit)


def _part(part: Any, limit: int) -> str:
    """Return a part of a message as text."""
    if not isinstance(part, Mapping):
        return folded(compact(part), limit)
    part = bedrock_converse.part(part)
    kind = compact(part.get("type") or "part")
    match kind:
        case "text" | "input_text" | "output_text" | "summary_text" | "reasoning_text":
            return folded(compact(part.get("text") or ""), limit)
        case "thinking":
            return _titled("thinking", compact(part.get("thinking") or ""), limit)
        case "redacted_thinking" | "compaction":
            return f"{kind}: {size(len(compact(part.get('data') or '')))}"
        case "reasoning":
            summary = "\n".join(_parts(part.get("summary") or part.get("content"), limit))
            return _titled("thinking", summary or "(encrypted)", limit)
        case "refusal":
            return _titled("refusal", compact(part.get("refusal") or ""), limit)
        case "image" | "image_url" | "input_image" | "document" | "input_file" | "file":
            return _media(kind, part)
        case "input_audio" | "audio" | "video":
            return _media(kind, part)
        case _ if kind.endswith(("_result", "_output")):
            return _result(part, limit)
        case _ if kind.endswith(("tool_use", "_call")):
            return _call(part.get("id") or part.get("call_id"), part, limit)
    return _titled(kind, listed({key: value for key, value in part.items() if key != "type"}), limit)


def _titled(title: str, text: str, limit: int) -> str:
    return f"{title}:\n{indented(folded(text, limit))}"


def _result(part: Mapping[str, Any], limit: int) -> str:
    identity = part.get("tool_use_id") or part.get("call_id") or ""
    content = part.get("content", part.get("output"))
    text = "\n".join(_parts(content, limit)) or "(empty)"
    failed = ", an error" if part.get("is_error") else ""
    return f"tool result {identity}".rstrip() + f"{failed}:\n{indented(text)}"


def _chat_call(call: Any, limit: int) -> str:
    call = _known(call)
    return _call(call.get("id"), _known(call.get("function")), limit)


def _call(identity: Any, call: Mapping[str, Any], limit: int) -> str:
    arguments = call.get("input", call.get("arguments", call.get("action", "")))
    if isinstance(arguments, str):
        arguments = _decoded(arguments)
    name = " ".join(str(part) for part in (call.get("name") or call.get("type"), identity) if part)
    text = "(no arguments)" if arguments in ("", {}, None) else listed(arguments)
    return _titled(f"tool call {name}", text, limit)


def _decoded(arguments: str) -> Any:
    try:
        return parsed(arguments)
    except (ValueError, RecursionError):
        return arguments


def _media(kind: str, part: Mapping[str, Any]) -> str:
    """Return an image or a file as a line with type and size."""
    source = _known(
        part.get("source") or part.get("image_url") or part.get("file") or part.get("input_audio")
    )
    where = part.get("image_url") if isinstance(part.get("image_url"), str) else source.get("url")
    data = source.get("data") or part.get("file_data") or source.get("file_data")
    media = source.get("media_type") or source.get("format") or ""
    if isinstance(where, str) and where.startswith("data:"):
        media, _, data = where[5:].partition(",")
        media = media.removesuffix(";base64")
    name = part.get("title") or part.get("filename") or source.get("filename") or ""
    if isinstance(data, str):
        facts = [media, size(len(data) * 3 // 4), name]
    else:
        facts = [media, where or source.get("file_id") or part.get("file_id") or "", name]
    return f"{kind.removeprefix('input_').removesuffix('_url')}: {', '.join(compact(fact) for fact in facts if fact)}"


# ---- responses ----


def _response(body: Mapping[str, Any]) -> Iterator[str]:
    if body.get("model"):
        yield f"model: {compact(body['model'])}"
    if body.get("content") is not None:
        yield _message({"role": "assistant", **body}, FOLD_RESPONSE)
    choices, output = _list(body.get("choices")), _list(body.get("output"))
    yield from _ends(choices, _choice, MAX_TEXT, "choices")
    yield from _ends(output, lambda item: _message(item, FOLD_RESPONSE), MAX_TEXT, "items")
    if body.get("error"):
        yield _section("error", [_error(body["error"])])
    if stop := _stop(body):
        yield f"stop: {stop}"
    if usage := _usage(body):
        yield f"usage: {usage}"
    if body and not body.keys() & {"content", "choices", "output", "error", "usage", "input_tokens"}:
        yield folded(listed(dict(body)), FOLD_PART)


def _choice(choice: Any) -> str:
    return _message({"role": "assistant", **_known(_known(choice).get("message"))}, FOLD_RESPONSE)


def _error(error: Any) -> str:
    if not isinstance(error, Mapping):
        return folded(compact(error), FOLD_PART)
    kind, text = error.get("type") or error.get("code"), error.get("message")
    return folded(
        ": ".join(compact(part) for part in (kind, text) if part) or compact(dict(error)), FOLD_PART
    )


# The Responses API's status of a response that is not finished.
_UNFINISHED = ("in_progress", "queued")


def _stop(body: Mapping[str, Any]) -> str | None:
    reasons = [body.get("stop_reason")]
    reasons += [_known(choice).get("finish_reason") for choice in _list(body.get("choices"))[:MAX_CHOICES]]
    reasons += [body.get("status")] if "output" in body and body.get("status") not in _UNFINISHED else []
    found = [compact(reason) for reason in reasons if reason]
    details = _known(body.get("incomplete_details")).get("reason")
    return ", ".join([*found, compact(details)] if details else found) or None


def _usage(body: Mapping[str, Any]) -> str | None:
    usage = _known(body.get("usage"))
    details = _known(usage.get("input_tokens_details") or usage.get("prompt_tokens_details"))
    thought = _known(usage.get("output_tokens_details") or usage.get("completion_tokens_details"))
    counts = {
        "in": usage.get("input_tokens", usage.get("prompt_tokens", body.get("input_tokens"))),
        "out": usage.get("output_tokens", usage.get("completion_tokens")),
        "cache read": usage.get("cache_read_input_tokens", details.get("cached_tokens")),
        "cache written": usage.get("cache_creation_input_tokens"),
        "thinking": thought.get("reasoning_tokens"),
    }
    return ", ".join(f"{name} {_count(count)}" for name, count in counts.items() if count is not None) or None


def _count(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else compact(value)


def _known(value: Any) -> dict[str, Any]:
    return dict(value) if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
