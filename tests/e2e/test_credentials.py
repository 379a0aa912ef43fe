"""Credentials that rotate, in a real mitmdump: after a 401 or 403 the next request gets a fresh value."""

import json
import sys
from typing import Any

import pytest

from support.answers import Answer, Reply, Seen, json_reply, message
from support.constants import API, JSON, REVERSE
from support.fixture_types import StartMitmdump, StartRecorder
from support.one_rule import post

pytestmark = pytest.mark.e2e

# Prints "token-1" in its first run, "token-2" in its second.
HELPER = "import os; open('runs', 'a').write('x'); print('token-%d' % os.path.getsize('runs'))"
OPENAI = "api.openai.com"
CHOICE = {"index": 0, "message": {"role": "assistant", "content": "hello there"}, "finish_reason": "stop"}
COMPLETION = {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [CHOICE]}


def rules(upstream: str) -> str:
    command = json.dumps([sys.executable, "-c", HELPER])
    return f"""
credentials: {{sso: {{command: {command}}}}}
rules:
  - match: {{host: [{API}, {OPENAI}], path: /v1/**}}
    upstream: {upstream}
    auth: {{scheme: bearer, credential: sso}}
"""


def fresh_keys_only(request: Seen) -> Answer:
    """An upstream whose first API accepts the second token only, and its second API the third."""
    asks_openai = request.path.endswith("/chat/completions")
    if request.values("authorization") == [f"Bearer token-{3 if asks_openai else 2}"]:
        return json_reply(COMPLETION if asks_openai else message())
    # As real upstreams do: nothing tells the client that a 401 may be worth another try.
    return json_reply({"error": {"message": "expired", "type": "authentication_error"}}, 401)


def test_after_a_401_the_sdks_get_the_fresh_value(recorder: StartRecorder, mitmdump: StartMitmdump) -> None:
    import anthropic
    import openai

    upstream = recorder(fresh_keys_only)
    proxy = mitmdump(rules=rules(upstream.url), modes=[f"reverse:https://{API}", f"reverse:https://{OPENAI}"])
    prompt: Any = [{"role": "user", "content": "hi"}]
    first = anthropic.Anthropic(base_url=proxy.url, api_key="placeholder")
    assert first.messages.create(model="m", max_tokens=9, messages=prompt).stop_reason == "end_turn"
    second = openai.OpenAI(base_url=f"http://127.0.0.1:{proxy.ports[1]}/v1", api_key="placeholder")
    answer = second.chat.completions.create(model="m", messages=prompt)
    assert answer.choices[0].message.content == "hello there"
    sent = [request.header("authorization") for request in upstream.requests]
    assert sent == [f"Bearer token-{number}" for number in (1, 2, 2, 3)]


def test_a_403_drops_the_value_only_if_it_tells_of_a_dead_token(
    recorder: StartRecorder, mitmdump: StartMitmdump
) -> None:
    upstream = recorder()
    proxy = mitmdump(rules=rules(upstream.url), modes=REVERSE)

    def key_after(body: str, kind: str = "") -> str | None:
        """Return the key of the request that follows such a 403."""
        upstream.script = Reply(403, body.encode(), (JSON, ("x-amzn-ErrorType", kind)))
        refused = post(proxy)
        assert refused.status == 403
        # Only a header tells of it before the answer has begun.
        assert refused.header("x-should-retry") == ("true" if kind == "ExpiredTokenException" else None)
        upstream.script = json_reply(message())
        assert post(proxy).status == 200
        return upstream.requests[-1].header("authorization")

    assert key_after('{"message":"no access to this model"}', "AccessDeniedException") == "Bearer token-1"
    assert key_after('{"message":"Invalid Token"}') == "Bearer token-2"
    assert key_after('{"message":"x"}', "ExpiredTokenException") == "Bearer token-3"
