"""The parts of a message as text: words, thinking, tool calls and results, images and files."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from ..text.bounded_json import parsed
from ..text.printable import compact, folded, indented, listed, size
from . import bedrock_converse, gemini
from .image_size import pixels
from .shapes import as_object

# Each line counts as some characters, because it takes time.
_LINE_WEIGHT = 60
_SHOWN_OTHERWISE = frozenset({
    "type", "content", "output", "id", "call_id", "tool_use_id", "is_error", "status", "cache_control",
    "encrypted_content",
})  # fmt: skip


def ends(items: Sequence[Any], render: Callable[[Any], str], room: int, name: str) -> Iterator[str]:
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


def section(title: str, parts: Iterable[str]) -> str:
    """Return parts below a title, indented."""
    return "\n".join([f"{title}:", *map(indented, parts)])


def parts_of(content: Any, limit: int) -> Iterator[str]:
    """Yield the parts of a message's content as text; each is folded at the limit."""
    if isinstance(content, str):
        yield folded(content, limit)
    elif isinstance(content, list):
        yield from ends(content, lambda part: part_text(part, limit), limit, "parts")
    elif isinstance(content, Mapping) and "type" in content:
        yield part_text(content, limit)
    elif content is not None:
        yield folded(compact(content), limit)


def part_text(part: Any, limit: int) -> str:
    """Return a part of a message as text."""
    if not isinstance(part, Mapping):
        return folded(compact(part), limit)
    part = gemini.part(bedrock_converse.part(part))
    kind = compact(part.get("type") or "part")
    match kind:
        case "text" | "input_text" | "output_text" | "summary_text" | "reasoning_text":
            return folded(compact(part.get("text") or ""), limit)
        case "thinking":
            return titled("thinking", compact(part.get("thinking") or ""), limit)
        case "redacted_thinking" | "compaction":
            return f"{kind}: {size(len(compact(part.get('data') or '')))}"
        case "reasoning":
            summary = "\n".join(parts_of(part.get("summary") or part.get("content"), limit))
            return titled("thinking", summary or "(encrypted)", limit)
        case "refusal":
            return titled("refusal", compact(part.get("refusal") or ""), limit)
        case "image" | "image_url" | "input_image" | "document" | "input_file" | "file":
            return _media(kind, part)
        case "input_audio" | "audio" | "video" | "computer_screenshot":
            return _media(kind, part)
        case "image_generation_call" if isinstance(part.get("result"), str):
            media = {"data": part["result"], "media_type": f"image/{part.get('output_format') or 'png'}"}
            return _media("generated image", {"source": media})
        case _ if kind.endswith(("_result", "_output")):
            return _result(part, limit)
        case _ if kind.endswith(("tool_use", "_call")):
            return _call(part.get("call_id") or part.get("id"), part, limit)
    return titled(kind, listed({key: value for key, value in part.items() if key != "type"}), limit)


def titled(title: str, text: str, limit: int) -> str:
    """Return a text below a title, folded at the limit."""
    return f"{title}:\n{indented(folded(text, limit))}"


def _result(part: Mapping[str, Any], limit: int) -> str:
    identity = part.get("tool_use_id") or part.get("call_id") or ""
    content = part.get("content", part.get("output"))
    text = "\n".join(parts_of(content, limit)) or _others(part) or "(empty)"
    failed = ", an error" if part.get("is_error") else ""
    return f"tool result {identity}".rstrip() + f"{failed}:\n{indented(text)}"


def _others(part: Mapping[str, Any]) -> str:
    """Return the members of a result without content, such as title and address of a page that was found."""
    return listed({key: value for key, value in part.items() if key not in _SHOWN_OTHERWISE})


def chat_call(call: Any, limit: int) -> str:
    """Return a tool call of chat completions as text."""
    call = as_object(call)
    return _call(call.get("id"), as_object(call.get("function")), limit)


def _call(identity: Any, call: Mapping[str, Any], limit: int) -> str:
    arguments = call.get("input", call.get("arguments", call.get("action", "")))
    if isinstance(arguments, str):
        arguments = _decoded(arguments)
    name = " ".join(str(part) for part in (call.get("name") or call.get("type"), identity) if part)
    text = "(no arguments)" if arguments in ("", {}, None) else listed(arguments)
    return titled(f"tool call {name}", text, limit)


def _decoded(arguments: str) -> Any:
    try:
        return parsed(arguments)
    except (ValueError, RecursionError):
        return arguments


def _media(kind: str, part: Mapping[str, Any]) -> str:
    """Return an image or a file as a line with type, size and pixels."""
    source = as_object(
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
        shape = pixels(data)
        facts = [media, size(len(data) * 3 // 4), f"{shape[0]} × {shape[1]} pixels" if shape else "", name]
    else:
        facts = [media, where or source.get("file_id") or part.get("file_id") or "", name]
    return f"{kind.removeprefix('input_').removesuffix('_url')}: {', '.join(compact(fact) for fact in facts if fact)}"
