"""The demo gateway alone, used by real clients; no mitmproxy in between."""

from typing import Any

import pytest

from support.fixture_types import RunClaude

pytestmark = pytest.mark.e2e

HELLO = "Hello from the demo gateway!"
PROMPT: Any = [{"role": "user", "content": "hello there"}]


def test_claude_code_gets_a_streamed_answer(demo: str, run_claude: RunClaude) -> None:
    env = {"ANTHROPIC_BASE_URL": demo, "ANTHROPIC_AUTH_TOKEN": "a-token-of-twenty-and-more"}
    done = run_claude(env, prompt="say something")
    assert done.returncode == 0, done
    assert done.stdout.startswith(HELLO)
    assert "- authorization: Bearer ****more\n" in done.stdout
    assert done.stdout.endswith("You said: say something\n")


def test_the_anthropic_sdk_understands_every_answer(demo: str) -> None:
    import anthropic

    client = anthropic.Anthropic(base_url=demo, auth_token="demo-key", api_key=None, max_retries=0)
    message = client.messages.create(model="claude-x", max_tokens=100, messages=PROMPT)
    assert (message.model, message.stop_reason) == ("claude-x", "end_turn")
    with client.messages.stream(model="claude-x", max_tokens=100, messages=PROMPT) as stream:
        assert "".join(stream.text_stream).endswith("You said: hello there")
        assert stream.get_final_message().usage.output_tokens > 10
    assert client.messages.count_tokens(model="claude-x", messages=PROMPT).input_tokens > 0
    assert "claude-sonnet-4.6" in [model.id for model in client.models.list()]
    refused = client.with_options(auth_token="", default_headers={"Authorization": "Basic any"})
    with pytest.raises(anthropic.AuthenticationError, match="the demo gateway wants"):
        refused.messages.create(model="claude-x", max_tokens=100, messages=PROMPT)


def test_the_openai_sdk_understands_every_answer(demo: str) -> None:
    import openai

    client = openai.OpenAI(base_url=f"{demo}/v1", api_key="demo-key", max_retries=0)
    answer = client.chat.completions.create(model="gpt-x", messages=PROMPT)
    assert (answer.model, answer.choices[0].finish_reason) == ("gpt-x", "stop")
    assert str(answer.choices[0].message.content).startswith(HELLO)
    chunks = client.chat.completions.create(model="gpt-x", messages=PROMPT, stream=True)
    text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    assert text.endswith("You said: hello there")
