"""The session and the agent that a client names in its headers or in its body."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

from .shapes import as_object

# Claude Code, Codex (three spellings), opencode, and names that several gateways and clients share.
SESSION_HEADERS = (
    "x-claude-code-session-id", "session_id", "session-id", "conversation_id", "x-opencode-session",
    "x-session-id", "x-conversation-id", "x-session-affinity",
)  # fmt: skip
AGENT_HEADERS = ("x-claude-code-agent-id",)
_CACHE_KEY, _METADATA = "prompt_cache_key", "metadata"
# The members of a body that name a session.
SESSION_KEYS = (_CACHE_KEY, _METADATA)
# The members of `metadata` that name a session, the most exact one first.
_NAMES = ("session_id", "conversation_id", "thread_id", "user_id")
# Older versions of Claude Code write user_HASH_account_UUID_session_UUID.
_OLD_USER, _OLD_NAME = "_session_", re.compile(r"[\w-]+", re.ASCII)
_MAX_NAME, _MAX_VALUE, _MAX_TRIES = 128, 2_000, 8
_VALUE = re.compile(rb"\s*:\s*")
_RESPONSE_ID = re.compile(rb'"id"\s*:\s*"(resp[\w-]{1,100})"', re.ASCII)
_DECODER = json.JSONDecoder()

Get: TypeAlias = Callable[[str], str | None]


def session_in_headers(get: Get) -> str | None:
    """Return the session that headers name; `get` returns the value of a header by its lower-case name."""
    return next(filter(None, map(get, SESSION_HEADERS)), None)


def agent_in_headers(get: Get) -> str | None:
    """Return the agent of a session that headers name."""
    return next(filter(None, map(get, AGENT_HEADERS)), None)


def session_in_body(body: Mapping[str, Any]) -> str | None:
    """Return the session that a request's JSON body names."""
    metadata = as_object(body.get(_METADATA))
    values = [body.get(_CACHE_KEY), *(metadata.get(name) for name in _NAMES)]
    texts = [value for value in values if isinstance(value, str) and 0 < len(value) <= _MAX_VALUE]
    return _session(texts[0]) if texts else None


def session_in_bytes(body: bytes) -> str | None:
    """Return the session that a body in JSON names, without parsing the rest of it."""
    for name in SESSION_KEYS:
        for value in _values(body, name):
            if found := session_in_body({name: value}):
                return found
    return None


def response_id(body: bytes) -> str | None:
    """Return the identifier under which the Responses API stores a response, from its beginning."""
    found = _RESPONSE_ID.search(body, 0, _MAX_VALUE)
    return found[1].decode() if found else None


def _values(body: bytes, name: str) -> Iterator[Any]:
    """Yield the first values of a key. Inside a string its quotes would be escaped."""
    key = f'"{name}"'.encode()
    at = -1
    for _ in range(_MAX_TRIES):
        if (at := body.find(key, at + 1)) < 0:
            return
        if colon := _VALUE.match(body, at + len(key)):
            text = body[colon.end() : colon.end() + _MAX_VALUE].decode("utf-8", "ignore")
            try:
                yield _DECODER.raw_decode(text)[0]
            except (ValueError, RecursionError):
                continue


def _session(value: str) -> str | None:
    """Return the session inside an identifier of a user, as Claude Code writes it, or the value itself."""
    if value.startswith("{"):
        try:
            inner = as_object(json.loads(value)).get("session_id")
        except (ValueError, RecursionError):
            inner = None
        value = inner if isinstance(inner, str) and inner else value
    elif _OLD_NAME.fullmatch(name := value.rpartition(_OLD_USER)[2]) and name != value:
        value = name
    return value[:_MAX_NAME]
