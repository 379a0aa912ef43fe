"""mitmproxy's server replay with rules: answers from a recording, without a credential or an upstream."""

import json
from pathlib import Path
from typing import Any

import pytest

from support.answers import Answer, Seen, Stream, json_reply, message, message_events
from support.constants import API, CK, ENV, GW_MARK, JSON, REVERSE
from support.fixture_types import StartMitmdump, StartRecorder
from support.http_client import Response, Wire
from support.mitmdump import Mitmdump

pytestmark = pytest.mark.e2e


def rules(upstream: str) -> str:
    return f"""
credentials: {{gw: {{env: GW_KEY}}}}
rules:
  - name: gw
    match: {{host: {API}, path: /v1/messages}}
    upstream: {upstream}
    auth: {{scheme: bearer, credential: gw}}
    models: {{map: {{claude-x: gw-model}}}}
    body: {{remove: [metadata]}}
  - name: own
    match: {{host: {API}, path: /v1/complete}}
    upstream: {upstream}
    allow_anthropic_key: true
    auth: {{scheme: bearer, credential: client}}
"""


def ask(
    proxy: Mitmdump,
    text: str = "hi",
    *,
    key: tuple[tuple[str, str], ...] = (),
    target: str = "/v1/messages",
    **more: Any,
) -> Response:
    body = {"model": "claude-x", "messages": [{"role": "user", "content": text}], **more}
    with Wire(proxy.port) as client:
        return client.request("POST", target, [("Host", "localhost"), JSON, *key], json.dumps(body).encode())


def answers(request: Seen) -> Answer:
    if b'"stream"' in request.body:
        return Stream(message_events("gw-model"), gated=False)
    return json_reply(message("gw-model", text=f"answer to {request.json['messages'][0]['content']}"))


def test_requests_of_rules_are_answered_from_a_recording(
    recorder: StartRecorder, mitmdump: StartMitmdump, tmp_path: Path
) -> None:
    upstream, file = recorder(answers), tmp_path / "talk.mitm"
    first = mitmdump("-w", str(file), rules=rules(upstream.url), modes=REVERSE, env=ENV)
    asked: list[dict[str, Any]] = [
        {"text": "one", "metadata": {"user_id": "session 1"}},
        {"text": "one", "stream": True},
        {"text": "two"},
        {"text": "own", "target": "/v1/complete"},
    ]
    recorded = [ask(first, key=(("x-api-key", CK),), **each) for each in asked]
    assert [each.status for each in recorded] == [200] * 4
    first.stop()
    assert GW_MARK.encode() not in file.read_bytes()
    sent = len(upstream.requests)

    # No variable holds the key, and no client sends one.
    second = mitmdump("-S", str(file), rules=rules(upstream.url), modes=REVERSE, env={})
    asked[0]["metadata"] = {"user_id": "session 2"}
    replayed = [ask(second, **each) for each in asked]
    assert [(each.status, each.body) for each in replayed] == [(each.status, each.body) for each in recorded]
    assert b'"model": "claude-x"' in replayed[0].body or b'"model":"claude-x"' in replayed[0].body
    assert "event-stream" in (replayed[1].header("content-type") or "")

    again = ask(second, "two")
    assert again.status == 424
    assert "server_replay_reuse" in again.body.decode()
    for more, where in (
        ({"text": "three"}, "messages[0].content"),
        ({"text": "two", "max_tokens": 9}, "max_tokens"),
        ({"text": "two", "model": "claude-y"}, "model"),
    ):
        missed = ask(second, **more)
        text = missed.body.decode()
        assert missed.status == 424
        assert missed.header("x-should-retry") == "false"
        assert f"differs in {where} " in text, text
        assert "the nearest is number 3" in text or more["text"] == "three", text
    assert len(upstream.requests) == sent
