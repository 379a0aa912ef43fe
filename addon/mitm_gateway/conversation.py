"""The text of the LLM view: a request or an answer of the Messages, chat completions, Responses or Converse API.

JSON, event streams and Bedrock's frames, whole, still running, cut off or damaged: the readable part is
shown and the rest is a note. Nothing here raises on rubbish.
"""

# Speed is a promise (10 MB in 200 ms), hence no incremental reader: `sse.EventReader` and a `json.loads` for
# each event take four times as long as one regular expression and one `json.loads` for a thousand events.

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, TypeAlias

from . import converse, eventstream
from .answers import Assembly
from .shown import MAX_KEYS, compact, folded, indented, listed, size, visible

Part: TypeAlias = str

# What a reader skims is folded early, what the model says late; the raw view has it all.
FOLD_SYSTEM, FOLD_PART, FOLD_ANSWER = 1_500, 4_000, 100_000
# A stream longer than this is read at its beginning and at its end only.
STREAM_HEAD, STREAM_TAIL = 3 << 20, 1 << 20
# The same for frames, which take longer, and how many are looked for.
FRAMES_HEAD, FRAMES_TAIL, MAX_FRAMES = 1 << 20, 1 << 19, 100_000
# A stream with more events than this that are damaged is none.
MAX_DAMAGED = 50
# Text beyond this is cut out of the middle: people look for the system prompt and the newest messages.
MAX_TEXT = 1 << 20
# How much of a damaged JSON text is looked through for its readable part.
MAX_REPAIRED = 1 << 19
_BATCH = 1000
_DATA = re.compile(rb"^data:[ ]?(.*(?:\n.+)*)", re.MULTILINE)
_TOKENS = re.compile(r'"(?:[^"\\]|\\.)*("?)|[\[\]{},]', re.DOTALL)
_CLOSING = {"{": "}", "[": "]"}

_PATHS = re.compile(
    r"/messages(?:/count_tokens)?$|/chat/completions$|/responses(?:/[^/]+)?$"
    r"|/model/[^/]+/(?:invoke|converse)[^/]*$|/models/[^/:]+:(?:streamR|r)awPredict$"
)
_KINDS = {"application/json", "text/event-stream", eventstream.CONTENT_TYPE}


def is_conversation(path: str, content_type: str) -> bool:
    """Whether what goes to or comes from this path is shown as a conversation unless told otherwise."""
    return _kind(content_type) in _KINDS and bool(_PATHS.search(path.partition("?")[0]))


def render(data: bytes, content_type: str) -> str:
    """The conversation in a body as text."""
    kind = _kind(content_type)
    notes: list[str] = []
    if kind == eventstream.CONTENT_TYPE:
        body = _streamed(_frame_events(data, notes), notes)
    elif kind == "text/event-stream" or data.lstrip()[:6] in (b"event:", b"data: "):
        body = _streamed(_events(data, notes), notes)
    else:
        body = _parsed(data, notes)
    try:
        sections = [*_body(body), *(f"note: {note}" for note in notes)]
    except RecursionError:
        sections = ["note: nested too deep to be shown"]
    return visible("\n\n".join(_bounded(sections)))


def _kind(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def _bounded(sections: Sequence[str]) -> Sequence[str]:
    """The sections, without those in the middle where all together are too long to be read."""
    total = sum(map(len, sections))
    if total <= MAX_TEXT:
        return sections
    tail, room = len(sections), MAX_TEXT * 3 // 4
    while tail > 0 and len(sections[tail - 1]) <= room:
        tail -= 1
        room -= len(sections[tail])
    head, room = 0, MAX_TEXT // 4
    while head < tail and len(sections[head]) <= room:
        room -= len(sections[head])
        head += 1
    if tail - head == 0:
        return sections
    left_out = sum(map(len, sections[head:tail]))
    return [*sections[:head], f"… {tail - head} parts with {left_out:,} characters", *sections[tail:]]


# ---- bytes to plain data ----


def _parsed(data: bytes, notes: list[str]) -> Any:
    try:
        return json.loads(data)
    except RecursionError:
        notes.append("nested too deep to be shown")
        return None
    except ValueError:
        readable = _repaired(data)
    if readable is None:
        notes.append("this is not JSON")
        return data[: FOLD_PART * 4].decode("utf-8", "replace")
    notes.append(f"the JSON of {size(len(data))} is cut off or damaged; this is what can be read of it")
    return readable


def _repaired(data: bytes) -> Any:
    """The readable part of a JSON text that is cut off: what is open at its end gets closed. Else None."""
    text = data[:MAX_REPAIRED].decode("utf-8", "replace")
    closing, safe, in_string = _open_ends(text)
    end = _before_escape(text) if in_string else len(text)
    candidates = [text[:end] + ('"' if in_string else "") + closing]
    # A key without its value cannot be closed, the text before it can.
    candidates.append(text[:safe] + _open_ends(text[:safe])[0])
    for candidate in candidates:
        with contextlib.suppress(ValueError, RecursionError):
            return json.loads(candidate, strict=False)
    return None


def _open_ends(text: str) -> tuple[str, int, bool]:
    """The brackets that close what is open, where a value last ended or began, whether a string is open."""
    closing: list[str] = []
    safe, in_string = 0, False
    for token in _TOKENS.finditer(text):
        mark = token[0]
        if mark in _CLOSING:
            closing.append(_CLOSING[mark])
            safe = token.end()
        elif mark == ",":
            safe = token.start()
        elif mark in ("}", "]"):
            if not closing or closing.pop() != mark:
                break
        elif not token[1]:
            in_string = True
    return "".join(reversed(closing)), safe, in_string


def _before_escape(text: str) -> int:
    """Where a text ends without an escape that is cut off, such as `\\u00`."""
    found = re.search(r"(?<!\\)(?:\\\\)*(\\(?:u[0-9a-fA-F]{0,3})?)$", text[-4096:])
    return len(text) - len(found[1]) if found else len(text)


def _events(data: bytes, notes: list[str]) -> Iterator[list[Any]]:
    if len(data) > STREAM_HEAD + STREAM_TAIL:
        skipped = len(data) - STREAM_HEAD - STREAM_TAIL
        notes.append(f"{size(skipped)} in the middle of the stream are not shown")
        yield from _part_events(data[:STREAM_HEAD], notes)
        data = data[-STREAM_TAIL:].partition(b"\n\n")[2]
    yield from _part_events(data, notes)


def _part_events(data: bytes, notes: list[str]) -> Iterator[list[Any]]:
    texts = [text for text in event_data(data) if text and text != b"[DONE]"]
    for start in range(0, len(texts), _BATCH):
        batch = texts[start : start + _BATCH]
        try:
            events = json.loads(b"[" + b",".join(batch) + b"]")
        except (ValueError, RecursionError):
            events = [event for text in batch if (event := _event(text, notes)) is not None]
        yield events
        if len(notes) > MAX_DAMAGED:
            return


def event_data(stream: bytes) -> list[bytes]:
    """The data of each event, the one that is cut off included."""
    if b"\r" in stream:
        stream = stream.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return [_joined(text) if b"\n" in text else text for text in _DATA.findall(stream)]


def _joined(text: bytes) -> bytes:
    """The data of an event with several lines, from the first line of data on."""
    first, *lines = text.split(b"\n")
    data = [line[5:].removeprefix(b" ") for line in lines if line.startswith(b"data:")]
    return b"\n".join([first, *data])


def _event(text: bytes, notes: list[str]) -> Any:
    if len(notes) > MAX_DAMAGED:
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        notes.append(f"an event of {size(len(text))} is cut off or damaged")
        return _repaired(text)


def _frame_events(data: bytes, notes: list[str]) -> Iterator[list[Any]]:
    spans = list(islice(eventstream.spans(data), MAX_FRAMES))
    end = spans[-1].end if spans else 0
    shown = [span for span in spans if span.end <= FRAMES_HEAD or span.start >= end - FRAMES_TAIL]
    if skipped := end - sum(span.end - span.start for span in shown):
        notes.append(f"{size(skipped)} in the middle of the stream are not shown")
    for span in shown:
        frame = eventstream.frame_at(data, span)
        try:
            yield converse.events(eventstream.event(frame))
        except (ValueError, RecursionError):
            notes.append(f"a frame of {size(len(frame.payload))} is damaged")
        if len(notes) > MAX_DAMAGED:
            return
    if end < len(data):
        notes.append(f"{size(len(data) - end)} at the end are no complete frame")


def _streamed(batches: Iterable[list[Any]], notes: list[str]) -> Any:
    assembly = Assembly()
    for batch in batches:
        assembly.add(batch)
    answer, is_complete = assembly.answer()
    if not is_complete:
        notes.append("the stream has not ended" if answer else "no event of a conversation so far")
    if len(notes) > MAX_DAMAGED:
        notes.insert(0, "too much of the stream is damaged; the rest is not read")
    if len(notes) > 5:
        notes[4:] = [f"and {len(notes) - 4} notes more"]
    return answer


# ---- plain data to text ----


def _body(body: Any) -> Iterator[str]:
    if isinstance(body, str):
        yield folded(body, FOLD_PART)
    elif isinstance(body, list):
        yield folded(compact(body[:FOLD_PART]), FOLD_PART)
    elif not isinstance(body, Mapping):
        yield folded(compact(body), FOLD_PART) if body is not None else ""
    elif _is_request(body):
        yield from _request(converse.body(body))
    else:
        yield from _answer(converse.body(body))


def _is_request(body: Mapping[str, Any]) -> bool:
    return "messages" in body or "input" in body or ("prompt" in body and "model" in body)


_TOLD_APART = {"messages", "input", "system", "instructions", "tools", "model"}


def _request(body: Mapping[str, Any]) -> Iterator[str]:
    settings = [f"model: {compact(body['model'])}"] if "model" in body else []
    others = {key: value for key, value in islice(body.items(), MAX_KEYS) if key not in _TOLD_APART}
    settings += [f"{key}: {folded(compact(value), 200)}" for key, value in others.items()]
    if settings:
        yield "\n".join(settings)
    for key in ("system", "instructions"):
        if body.get(key):
            parts = list(_parts(body[key], FOLD_SYSTEM))
            yield _section(f"system ({_length(body[key])})", parts)
    if isinstance(body.get("tools"), list):
        names = ", ".join(_tool_name(tool) for tool in body["tools"])
        yield _section(f"tools ({len(body['tools'])})", [folded(names, FOLD_PART)])
    messages = body.get("messages", body.get("input"))
    for message in messages if isinstance(messages, list) else [{"role": "user", "content": messages}]:
        yield _message(message, FOLD_PART)


def _length(value: Any) -> str:
    texts = [value] if isinstance(value, str) else [_known(part).get("text") for part in _items(value)]
    return size(sum(len(text) for text in texts if isinstance(text, str)))


def _tool_name(tool: Any) -> str:
    tool = _known(tool)
    name = tool.get("name") or _known(tool.get("function")).get("name") or tool.get("type") or "?"
    return compact(name)


def _message(message: Any, limit: int) -> str:
    message = _known(message) if isinstance(message, Mapping) else {"content": message}
    role = compact(message.get("role") or message.get("type") or "message")
    if "role" not in message and "content" not in message:
        return "\n".join(_part(message, limit))
    parts = []
    if reasoning := message.get("reasoning_content") or message.get("reasoning"):
        parts += _titled("thinking", compact(reasoning), limit)
    content = list(_parts(message.get("content"), limit))
    if role == "tool":
        content = [f"tool result {message.get('tool_call_id', '')}".rstrip() + ":", *map(indented, content)]
    parts += content
    if message.get("refusal"):
        parts += _titled("refusal", compact(message["refusal"]), limit)
    parts = [part for part in parts if part]
    for call in _items(message.get("tool_calls")):
        parts += _call(call.get("id"), _known(call.get("function")), limit)
    return _section(role, parts or ["(empty)"])


def _section(title: str, parts: Iterable[str]) -> str:
    return "\n".join([f"{title}:", *map(indented, parts)])


def _parts(content: Any, limit: int) -> Iterator[str]:
    if isinstance(content, str):
        yield folded(content, limit)
    elif isinstance(content, list):
        for part in content:
            yield from _part(part, limit)
    elif content is not None:
        yield folded(compact(content), limit)


def _part(part: Any, limit: int) -> list[str]:
    """A piece of content as lines of text."""
    if not isinstance(part, Mapping):
        return [folded(compact(part), limit)]
    part = converse.part(part)
    kind = compact(part.get("type") or "part")
    match kind:
        case "text" | "input_text" | "output_text" | "summary_text" | "reasoning_text":
            return [folded(compact(part.get("text") or ""), limit)]
        case "thinking":
            return _titled("thinking", compact(part.get("thinking") or ""), limit)
        case "redacted_thinking" | "compaction":
            return [f"{kind}: {size(len(compact(part.get('data') or '')))}"]
        case "reasoning":
            summary = "\n".join(_parts(part.get("summary") or part.get("content"), limit))
            return _titled("thinking", summary or "(encrypted)", limit)
        case "refusal":
            return _titled("refusal", compact(part.get("refusal") or ""), limit)
        case "image" | "image_url" | "input_image" | "document" | "input_file" | "file":
            return [_media(kind, part)]
        case "input_audio" | "audio" | "video":
            return [_media(kind, part)]
        case _ if kind.endswith(("_result", "_output")):
            return _result(part, limit)
        case _ if kind.endswith(("tool_use", "_call")):
            return _call(part.get("id") or part.get("call_id"), part, limit)
    return _titled(kind, listed({key: value for key, value in part.items() if key != "type"}), limit)


def _titled(title: str, text: str, limit: int) -> list[str]:
    return [f"{title}:\n{indented(folded(text, limit))}"]


def _result(part: Mapping[str, Any], limit: int) -> list[str]:
    identity = part.get("tool_use_id") or part.get("call_id") or ""
    content = part.get("content", part.get("output"))
    shown = "\n".join(_parts(content, limit)) or "(empty)"
    failed = ", an error" if part.get("is_error") else ""
    return [f"tool result {identity}".rstrip() + f"{failed}:\n{indented(shown)}"]


def _call(identity: Any, call: Mapping[str, Any], limit: int) -> list[str]:
    arguments = call.get("input", call.get("arguments", call.get("action", "")))
    if isinstance(arguments, str):
        arguments = _decoded(arguments)
    name = " ".join(str(part) for part in (call.get("name") or call.get("type"), identity) if part)
    shown = "(no arguments)" if arguments in ("", {}, None) else listed(arguments)
    return _titled(f"tool call {name}", shown, limit)


def _decoded(arguments: str) -> Any:
    try:
        return json.loads(arguments)
    except (ValueError, RecursionError):
        return arguments


def _media(kind: str, part: Mapping[str, Any]) -> str:
    """A picture or a file as a line with type and size."""
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
        told = [media, size(len(data) * 3 // 4), name]
    else:
        told = [media, where or source.get("file_id") or part.get("file_id") or "", name]
    return f"{kind.removeprefix('input_').removesuffix('_url')}: {', '.join(compact(t) for t in told if t)}"


# ---- answers ----


def _answer(body: Mapping[str, Any]) -> Iterator[str]:
    if body.get("model"):
        yield f"model: {compact(body['model'])}"
    if body.get("content") is not None:
        yield _message({"role": "assistant", **body}, FOLD_ANSWER)
    for choice in _items(body.get("choices")):
        yield _message({"role": "assistant", **_known(choice.get("message"))}, FOLD_ANSWER)
    for item in _items(body.get("output")):
        yield _message(item, FOLD_ANSWER)
    if body.get("error"):
        yield _section("error", [_error(body["error"])])
    if stop := _stop(body):
        yield f"stop: {stop}"
    if usage := _usage(body):
        yield f"usage: {usage}"
    if body and not body.keys() & {"content", "choices", "output", "error", "usage", "input_tokens"}:
        yield folded(listed(dict(body)), FOLD_PART)


def _error(error: Any) -> str:
    if not isinstance(error, Mapping):
        return folded(compact(error), FOLD_PART)
    kind, text = error.get("type") or error.get("code"), error.get("message")
    return folded(
        ": ".join(compact(part) for part in (kind, text) if part) or compact(dict(error)), FOLD_PART
    )


def _stop(body: Mapping[str, Any]) -> str | None:
    reasons = [body.get("stop_reason")]
    reasons += [choice.get("finish_reason") for choice in _items(body.get("choices"))]
    reasons += [body.get("status")] if "output" in body else []
    found = [compact(reason) for reason in reasons if reason]
    details = _known(body.get("incomplete_details")).get("reason")
    return ", ".join([*found, compact(details)] if details else found) or None


def _usage(body: Mapping[str, Any]) -> str | None:
    usage = _known(body.get("usage"))
    details = _known(usage.get("input_tokens_details") or usage.get("prompt_tokens_details"))
    thought = _known(usage.get("output_tokens_details") or usage.get("completion_tokens_details"))
    told = {
        "in": usage.get("input_tokens", usage.get("prompt_tokens", body.get("input_tokens"))),
        "out": usage.get("output_tokens", usage.get("completion_tokens")),
        "cache read": usage.get("cache_read_input_tokens", details.get("cached_tokens")),
        "cache written": usage.get("cache_creation_input_tokens"),
        "thinking": thought.get("reasoning_tokens"),
    }
    return ", ".join(f"{name} {compact(count)}" for name, count in told.items() if count is not None) or None


def _known(value: Any) -> dict[str, Any]:
    return dict(value) if isinstance(value, Mapping) else {}


def _items(value: Any) -> list[dict[str, Any]]:
    return [_known(item) for item in value] if isinstance(value, list) else []
