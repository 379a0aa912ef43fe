"""Local answers that a rule allows: a list of models, a token estimate, 200 to a probe."""

import json
from dataclasses import dataclass
from typing import Any

from ..llm.apis import Form
from ..llm.calls import Call, call_of
from ..rules.ruleset import RuleSet
from ..rules.schema import Rule
from ..text.bounded_json import has_too_many_values_in_turns
from ..text.turns import Turns, finish
from ..wire.request import RequestHead

PROBE = "a client's probe"
# Characters per token in English text mixed with code; Anthropic's guide says about 3.5, tool schemas have more.
CHARACTERS_PER_TOKEN = 3.6
# Reading a text takes 10 ns for each escape, in one piece; a body with more is estimated from its size.
MAX_BACKSLASHES = 1_000_000
# An image has at most 1,600 tokens.
IMAGE_CHARACTERS = 5760
# The members of a request that the model reads.
_MEMBERS = ("system", "messages", "tools")
ESTIMATED_MEMBERS: dict[Form, tuple[str, ...]] = {
    "anthropic": _MEMBERS,
    "openai": _MEMBERS,
    "bedrock": _MEMBERS,
    "gemini": ("systemInstruction", "contents", "tools", "generateContentRequest"),
}
# Lists of models require a date; the names are from a file, which has none.
_CREATED_AT = "1970-01-01T00:00:00Z"


@dataclass(frozen=True, slots=True)
class LocalAnswer:
    """A complete response."""

    status: int
    content_type: str
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()
    note: str | None = None
    """Kind of the request, for the log."""


TO_PROBE = LocalAnswer(200, "", b"", note=PROBE)


def answer_to_probe(ruleset: RuleSet, head: RequestHead) -> LocalAnswer | None:
    """Return 200 for a `HEAD` on any path of a host whose rules say `head: true`."""
    if head.verb != "HEAD":
        return None
    return TO_PROBE if any(rule.respond.head for rule in ruleset.on_host(head.host, head.port)) else None


def answer_to_head(rule: Rule, ruleset: RuleSet, head: RequestHead) -> LocalAnswer | None:
    """Return the list of models, or one of them, if the request asks for it and the rule allows it."""
    if not rule.respond.models or head.verb != "GET":
        return None
    call = call_of(head)
    names = listed_models(rule, ruleset)
    match call:
        case Call(api) if api.local == "models":
            return _json(model_list(names, call.form))
        case Call(api, model=str(name)) if api.local == "model" and name in names:
            return _json(one_model(name, call.form))
    return None


def answer_to_body(rule: Rule, head: RequestHead, body: bytes) -> Turns[LocalAnswer | None]:
    """Return a token estimate if the request asks for it and the rule allows it."""
    if rule.respond.count_tokens != "estimate" or head.verb != "POST":
        return None
    call = call_of(head)
    if call.api.local != "count_tokens":
        return None
    return _json({COUNT_KEYS[call.form]: (yield from _estimate(body, call.form))})


COUNT_KEYS: dict[Form, str] = {
    "anthropic": "input_tokens",
    "openai": "input_tokens",
    "gemini": "totalTokens",
    "bedrock": "inputTokens",
}


def listed_models(rule: Rule, ruleset: RuleSet) -> tuple[str, ...]:
    """Return the names that a client may ask for: exact ones of the rule's map, and those of a Desktop file."""
    exact = tuple(rule.models.names.exact) if rule.models else ()
    return tuple(dict.fromkeys((*exact, *ruleset.listed_models)))


def estimated_tokens(body: bytes, form: Form = "anthropic") -> int:
    """Estimate the input tokens of a request from the characters of its texts and schemas."""
    return finish(_estimate(body, form))


def _estimate(body: bytes, form: Form) -> Turns[int]:
    if body.count(b"\\") > MAX_BACKSLASHES or (yield from has_too_many_values_in_turns(body)):
        return _tokens(len(body))
    members = ESTIMATED_MEMBERS[form]
    sizes = _Sizes()
    try:
        size = json.loads(body, object_pairs_hook=sizes, parse_int=len, parse_float=len, parse_constant=len)
        characters = sizes.of_members(members) if isinstance(size, _ObjectSize) else _characters(size)
    except (ValueError, RecursionError):
        characters = len(body)
    return _tokens(characters)


def _tokens(characters: int) -> int:
    return max(1, int(characters / CHARACTERS_PER_TOKEN + 0.5))


class _ObjectSize(int):
    """The characters of an object that the model reads."""


class _Sizes:
    """Replaces each object by its size as soon as it is read, so that no more than one is in memory."""

    def __init__(self) -> None:
        self._last: list[tuple[str, int]] = []

    def __call__(self, pairs: list[tuple[str, Any]]) -> _ObjectSize:
        """Return an object's size; a repeated key counts each time, an image as its most tokens."""
        self._last = [(key, _characters(value)) for key, value in pairs]
        if ("type", "base64") in pairs:
            return _ObjectSize(IMAGE_CHARACTERS)
        return _ObjectSize(sum(len(key) + size for key, size in self._last))

    def of_members(self, names: tuple[str, ...]) -> int:
        """Return the size of these members of the outermost object, which is read last."""
        return sum(map(len, names)) + sum(size for key, size in self._last if key in names)


def _characters(value: Any) -> int:
    """Count the characters of a value as it is written; numbers and objects are counted already."""
    match value:
        case str():
            return len(value)
        case list():
            return sum(map(_characters, value))
        case bool():
            return len(str(value))
        case None:
            return 0
        case _:
            return int(value)


def model_list(names: tuple[str, ...], form: Form) -> dict[str, Any]:
    """Return the answer to `GET /v1/models`."""
    models = [one_model(name, form) for name in names]
    match form:
        case "openai":
            return {"object": "list", "data": models}
        case "gemini":
            return {"models": models}
    return {
        "data": models,
        "has_more": False,
        "first_id": names[0] if names else None,
        "last_id": names[-1] if names else None,
    }


def one_model(name: str, form: Form) -> dict[str, Any]:
    """Return the answer to `GET /v1/models/NAME`."""
    match form:
        case "openai":
            return {"id": name, "object": "model", "created": 0, "owned_by": "mitm-gateway"}
        case "gemini":
            methods = ["generateContent", "countTokens"]
            return {"name": f"models/{name}", "displayName": name, "supportedGenerationMethods": methods}
    return {"type": "model", "id": name, "display_name": name, "created_at": _CREATED_AT}


def _json(data: dict[str, Any]) -> LocalAnswer:
    return LocalAnswer(200, "application/json", json.dumps(data, ensure_ascii=False).encode())
