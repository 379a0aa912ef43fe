"""The text of the LLM view: a request or a response of a conversation, of any API in the table.

If a body is incomplete, damaged or hostile, its readable part is shown and a note describes the rest. Nothing here
raises on malformed data.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from ..text.printable import MAX_LISTED, compact, dollars, folded, indented, listed, size, visible, wrapped
from ..wire.addresses import normal_path
from . import bedrock_converse, gemini
from .body_kind import declared_kind
from .calls import identify
from .conversation_parts import chat_call, ends, part_text, parts_of, section, titled
from .conversation_tools import tool_text
from .read_body import read
from .shapes import as_list, as_object
from .usage import UNFINISHED, counts_in

# Text beyond this is omitted from the middle: the system prompt and the newest messages matter most. A single part has
# a quarter of it.
DEFAULT_LIMIT = 1 << 20
WIDTH = 100
# Data that is not a conversation, and the value of a setting, are shown this far.
_MAX_OTHER, _MAX_SETTING = 16_000, 2_000
_MAX_CHOICES = 20


def is_conversation(host: str, method: str, target: str, content_type: str) -> bool:
    """Return True if the LLM view is the default for a request or a response of this endpoint."""
    path = normal_path(target.partition("?")[0])
    return declared_kind(content_type) != "other" and identify(host, method, path).api.is_conversation


def render(
    data: bytes, content_type: str, now: Callable[[], float] = time.thread_time, limit: int = DEFAULT_LIMIT
) -> str:
    """Return the conversation in a body as text of about this size; `now` is a clock of CPU time."""
    return for_terminal("\n\n".join(sections(data, content_type, now, limit)))


def sections(data: bytes, content_type: str, now: Callable[[], float], limit: int) -> list[str]:
    """Return the sections of that text, each with its title in the first line, as the peer wrote them."""
    notes: list[str] = []
    body = read(data, content_type, notes, now)
    try:
        found = [*_body(body, limit), *(f"note: {note}" for note in notes)]
    except RecursionError:
        found = ["note: nested too deep to show"]
    return list(filter(None, found))


def for_terminal(text: str, width: int | None = WIDTH) -> str:
    """Return such a text without characters that act on a terminal, and with its long lines wrapped to a width."""
    return wrapped(visible(text), width) if width else visible(text)


def with_turn(text: str, lines: Sequence[str]) -> str:
    """Return a request's text below the lines about the request that it continues, if any."""
    return f"{wrapped(section('since the request before', lines), WIDTH)}\n\n{text}" if lines else text


def with_outcome(text: str, facts: Mapping[str, Any]) -> str:
    """Return the text of a response with its failure and the hint on top, and its cost at the end."""
    first, _, rest = text.partition("\n\n")
    if "error" not in facts and "refusal" not in facts and "hint" not in facts:
        top = []
    elif first.startswith("error:"):
        top, text = [first], rest
    else:
        top = [f"error: {reason}" for reason in (facts.get("refusal") or facts.get("error"),) if reason]
    top += [f"hint: {facts['hint']}"] if facts.get("hint") else []
    end = [f"cost: {dollars(facts['cost_usd'])}"] if "cost_usd" in facts else []
    head = wrapped(visible("\n\n".join(top)), WIDTH)
    return "\n\n".join(filter(None, (head, text, *end)))


def _body(body: Any, limit: int) -> Iterator[str]:
    if isinstance(body, list):
        yield folded(compact(body[:_MAX_OTHER]), _MAX_OTHER)
    elif not isinstance(body, Mapping):
        yield folded(compact(body), _MAX_OTHER) if body is not None else ""
    else:
        body = gemini.body(bedrock_converse.body(body))
        yield from _request(body, limit) if _is_request(body) else _response(body, limit)


def _is_request(body: Mapping[str, Any]) -> bool:
    return "messages" in body or "input" in body or ("prompt" in body and "model" in body)


_OWN_SECTIONS = {"messages", "input", "system", "instructions", "tools", "model"}


def _request(body: Mapping[str, Any], limit: int) -> Iterator[str]:
    part_limit = limit // 4
    settings = [f"model: {compact(body['model'])}"] if "model" in body else []
    others = {key: value for key, value in islice(body.items(), MAX_LISTED) if key not in _OWN_SECTIONS}
    settings += [f"{key}: {folded(compact(value), _MAX_SETTING)}" for key, value in others.items()]
    if settings:
        yield "\n".join(settings)
    for key in ("system", "instructions"):
        if body.get(key):
            yield section(f"system ({_length(body[key])})", parts_of(body[key], part_limit))
    if isinstance(body.get("tools"), list) and body["tools"]:
        yield _tools(body["tools"], part_limit)
    messages = body.get("messages", body.get("input"))
    if not isinstance(messages, list):
        messages = [{"role": "user", "content": messages}]
    yield from ends(messages, lambda message: _message(message, part_limit), limit, "messages")


def _tools(tools: list[Any], limit: int) -> str:
    return section(f"tools ({len(tools)})", ends(tools, lambda tool: tool_text(tool, limit), limit, "tools"))


def _length(value: Any) -> str:
    parts = value if isinstance(value, list) else [{"text": value}]
    texts = [part.get("text") for part in parts if isinstance(part, Mapping)]
    return size(sum(len(text) for text in texts if isinstance(text, str)))


def _message(message: Any, limit: int) -> str:
    message = as_object(message) if isinstance(message, Mapping) else {"content": message}
    role = compact(message.get("role") or message.get("type") or "message")
    tools = as_list(message.get("additional_tools")) or as_list(message.get("tools"))
    if not tools and "role" not in message and "content" not in message:
        return part_text(message, limit)
    texts = []
    if reasoning := message.get("reasoning_content") or message.get("reasoning"):
        texts.append(titled("thinking", compact(reasoning), limit))
    content = list(parts_of(message.get("content"), limit))
    if role == "tool":
        content = [f"tool result {message.get('tool_call_id', '')}".rstrip() + ":", *map(indented, content)]
    texts += content
    if message.get("refusal"):
        texts.append(titled("refusal", compact(message["refusal"]), limit))
    texts = [text for text in texts if text]
    if tools:
        texts.append(_tools(tools, limit))
    texts += ends(as_list(message.get("tool_calls")), lambda call: chat_call(call, limit), limit, "calls")
    return section(role, texts or ["(empty)"])


# ---- responses ----


def _response(body: Mapping[str, Any], limit: int) -> Iterator[str]:
    part_limit = limit // 4
    if body.get("error"):
        yield section("error", [_error(body["error"])])
    if body.get("model"):
        yield f"model: {compact(body['model'])}"
    if body.get("content") is not None:
        yield _message({"role": "assistant", **body}, part_limit)
    choices, output = as_list(body.get("choices")), as_list(body.get("output"))
    yield from ends(choices, lambda choice: _choice(choice, part_limit), limit, "choices")
    yield from ends(output, lambda item: _message(item, part_limit), limit, "items")
    if stop := _stop(body):
        yield f"stop: {stop}"
    if usage := _usage(body):
        yield f"usage: {usage}"
    if body and not body.keys() & {"content", "choices", "output", "error", "usage", "input_tokens"}:
        yield folded(listed(dict(body)), _MAX_OTHER)


def _choice(choice: Any, limit: int) -> str:
    return _message({"role": "assistant", **as_object(as_object(choice).get("message"))}, limit)


def _error(error: Any) -> str:
    if not isinstance(error, Mapping):
        return folded(compact(error), _MAX_OTHER)
    kind, text = error.get("type") or error.get("status") or error.get("code"), error.get("message")
    parts = [compact(part) for part in (kind, text) if part]
    return folded(": ".join(parts) or compact(dict(error)), _MAX_OTHER)


def _stop(body: Mapping[str, Any]) -> str | None:
    reasons = [body.get("stop_reason")]
    reasons += [
        as_object(choice).get("finish_reason") for choice in as_list(body.get("choices"))[:_MAX_CHOICES]
    ]
    reasons += [body.get("status")] if "output" in body and body.get("status") not in UNFINISHED else []
    found = [compact(reason) for reason in reasons if reason]
    details = as_object(body.get("incomplete_details")).get("reason")
    return ", ".join([*found, compact(details)] if details else found) or None


def _usage(body: Mapping[str, Any]) -> str | None:
    usage = as_object(body.get("usage", body))
    found = counts_in(usage)
    thought = as_object(usage.get("output_tokens_details") or usage.get("completion_tokens_details"))
    counts = {
        "in": found.input_tokens,
        "out": found.output_tokens,
        "cache read": found.cache_read_tokens,
        "cache written": found.cache_creation_tokens,
        "thinking": thought.get("reasoning_tokens"),
    }
    return ", ".join(f"{name} {count:,}" for name, count in counts.items() if isinstance(count, int)) or None
