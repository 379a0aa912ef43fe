"""Answers that a rule lets the gateway give by itself: a models list, a token estimate, a probe's 200."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from ..rules.ruleset import RuleSet
from ..rules.schema import Rule
from ..wire.request import RequestHead

# Characters a token on English text and code mixed; Anthropic's guide says about 3.5, tool schemas have more.
CHARACTERS_PER_TOKEN = 3.6
# An image has at most 1,600 tokens.
IMAGE_CHARACTERS = 5760
ESTIMATED_MEMBERS = ("system", "messages", "tools")
# A model list wants a date; the names come from a file, which has none.
_CREATED_AT = "1970-01-01T00:00:00Z"
_MODEL_PATHS = ("/v1/models", "/models")
_COUNT_PATH = "/messages/count_tokens"


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete local answer."""

    status: int
    content_type: str
    body: bytes


def to_probe(ruleset: RuleSet, head: RequestHead) -> Answer | None:
    """200 to a `HEAD` on any path of a host whose rules say `head: true`."""
    if head.method.upper() != "HEAD":
        return None
    rules = ruleset.on_host(head.host, head.port)
    return Answer(200, "application/json", b"") if any(rule.respond.head for rule in rules) else None


def to_head(rule: Rule, ruleset: RuleSet, head: RequestHead) -> Answer | None:
    """The models list where the rule gives one and the request asks for it."""
    path = head.path.rstrip("/")
    if not rule.respond.models or head.method.upper() != "GET":
        return None
    names = listed_models(rule, ruleset)
    if path.endswith(_MODEL_PATHS):
        return _json(200, model_list(names))
    parent, _, name = path.rpartition("/")
    if parent.endswith(_MODEL_PATHS) and name in names:
        return _json(200, one_model(name))
    return None


def to_body(rule: Rule, head: RequestHead, body: bytes) -> Answer | None:
    """A token estimate where the rule gives one and the request asks for it."""
    asks = head.method.upper() == "POST" and head.path.rstrip("/").endswith(_COUNT_PATH)
    if not asks or rule.respond.count_tokens != "estimate":
        return None
    return _json(200, {"input_tokens": estimated_tokens(body)})


def listed_models(rule: Rule, ruleset: RuleSet) -> tuple[str, ...]:
    """The names that a client may ask for: exact ones of the rule's map, and those of a Desktop file."""
    exact = rule.models.exact_names if rule.models else ()
    return tuple(dict.fromkeys((*exact, *ruleset.listed_models)))


def estimated_tokens(body: bytes) -> int:
    """Estimate the input tokens of a request from the characters of its texts and schemas."""
    try:
        # Numbers count as written, and objects stay pairs, so that a repeated key counts each time.
        data = json.loads(body, object_pairs_hook=tuple, parse_int=str, parse_float=str, parse_constant=str)
        characters = _counted(data) if isinstance(data, tuple) else _characters(data)
    except (ValueError, RecursionError):
        characters = len(body)
    return max(1, int(characters / CHARACTERS_PER_TOKEN + 0.5))


def _counted(pairs: tuple[tuple[str, Any], ...]) -> int:
    names = sum(map(len, ESTIMATED_MEMBERS))
    return names + sum(_characters(value) for key, value in pairs if key in ESTIMATED_MEMBERS)


def _characters(value: Any) -> int:
    """Count the characters that the model reads; an image counts as its most tokens."""
    match value:
        case str():
            return len(value)
        case tuple() if ("type", "base64") in value:
            return IMAGE_CHARACTERS
        case tuple():
            return sum(len(key) + _characters(item) for key, item in value)
        case list():
            return sum(map(_characters, value))
        case None:
            return 0
        case _:
            return len(str(value))


def model_list(names: tuple[str, ...]) -> dict[str, Any]:
    """The answer to `GET /v1/models`."""
    return {
        "data": [one_model(name) for name in names],
        "has_more": False,
        "first_id": names[0] if names else None,
        "last_id": names[-1] if names else None,
    }


def one_model(name: str) -> dict[str, str]:
    """The answer to `GET /v1/models/NAME`."""
    return {"type": "model", "id": name, "display_name": name, "created_at": _CREATED_AT}


def _json(status: int, data: dict[str, Any]) -> Answer:
    return Answer(status, "application/json", json.dumps(data, ensure_ascii=False).encode())
