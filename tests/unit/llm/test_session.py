"""The session that a client names in headers or in its body."""

import json
from typing import Any

from mitm_gateway.llm.session import (
    agent_in_headers,
    response_id,
    session_in_body,
    session_in_bytes,
    session_in_headers,
)
from support.table import table

UUID = "3f2a9c1e-0000-4000-8000-123456789abc"


@table("name", ["x-claude-code-session-id", "session_id", "session-id", "x-session-id"])
def test_headers_name_a_session(name: str) -> None:
    assert session_in_headers({name: UUID}.get) == UUID
    assert session_in_headers(dict[str, str]().get) is None
    assert agent_in_headers({"x-claude-code-agent-id": "a1"}.get) == "a1"


@table(
    ("body", "session"),
    [
        ({"metadata": {"user_id": f"user_0a_account_{UUID}_session_{UUID}"}}, UUID),
        ({"metadata": {"user_id": json.dumps({"device_id": "d", "session_id": UUID})}}, UUID),
        ({"metadata": {"user_id": "somebody"}}, "somebody"),
        ({"metadata": {"session_id": "s", "user_id": "u"}}, "s"),
        ({"prompt_cache_key": UUID, "metadata": {"user_id": "u"}}, UUID),
        ({"metadata": {}, "messages": []}, None),
        ({"metadata": 1, "prompt_cache_key": 2}, None),
    ],
)
def test_a_body_names_a_session(body: dict[str, Any], session: str | None) -> None:
    assert session_in_body(body) == session
    assert session_in_bytes(json.dumps(body).encode()) == session


def test_text_inside_a_message_names_no_session() -> None:
    quoted = json.dumps({"prompt_cache_key": "fake", "metadata": {"user_id": "fake"}})
    schema = {"properties": {"metadata": {"type": "object"}}}
    body = {"tools": [{"input_schema": schema}], "messages": [{"role": "user", "content": quoted}]}
    assert session_in_bytes(json.dumps(body).encode()) is None
    assert session_in_bytes(b'{"metadata": {"user_id": "cut') is None
    assert session_in_bytes(b"\xff\x00") is None


def test_a_response_has_an_identifier() -> None:
    event = b'data: {"type":"response.created","response":{"id":"resp_0a1b","object":"response"}}\n\n'
    assert response_id(event) == "resp_0a1b"
    assert response_id(b'{"id": "chatcmpl-1"}') is None
