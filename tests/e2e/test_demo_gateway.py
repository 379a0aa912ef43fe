"""The demo gateway alone, used by real clients; no mitmproxy in between."""

from typing import Any

import pytest

from support.fixture_types import RunClaude

pytestmark = pytest.mark.e2e

HELLO = "Hello from the demo gateway!"
PROMPT: Any = [{"role": "user", "content": "hello there"}]


@pytest.fixture
def anthropic_client(demo: str) -> Any:
    import anthropic

    return anthropic.Anthropic(base_url=demo, auth_token="demo-key", api_key=None, max_retries=0)


@pytest.fixture
def openai_client(demo: str) -> Any:
    import openai

    return openai.OpenAI(base_url=f"{demo}/v1", api_key="demo-key", max_retries=0)


def test_claude_code_gets_a_streamed_answer(demo: str, run_claude: RunClaude) -> None:
    env = {"ANTHROPIC_BASE_URL": demo, "ANTHROPIC_AUTH_TOKEN": "a-token-of-twenty-and-more"}
    done = run_claude(env, prompt="say something")
    assert done.returncode == 0, done
    assert done.stdout.startswith(HELLO)
    assert "- authorization: Bearer ****more\n" in done.stdout
    assert done.stdout.endswith("You said: say something\n")


def test_claude_code_with_an_api_key_gets_the_reason_for_the_refusal(
    demo: str, run_claude: RunClaude
) -> None:
    done = run_claude({"ANTHROPIC_BASE_URL": demo, "ANTHROPIC_API_KEY": "any-key"})
    assert done.returncode == 1
    assert 'the demo gateway wants "Authorization: Bearer <anything>"' in done.stdout


def test_the_anthropic_sdk_gets_a_message(anthropic_client: Any) -> None:
    message = anthropic_client.messages.create(model="claude-x", max_tokens=100, messages=PROMPT)
    assert (message.model, message.stop_reason) == ("claude-x", "end_turn")
    assert message.content[0].type == "text"
    assert message.content[0].text.startswith(HELLO)


def test_the_anthropic_sdk_gets_a_stream(anthropic_client: Any) -> None:
    with anthropic_client.messages.stream(model="claude-x", max_tokens=100, messages=PROMPT) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text.startswith(HELLO)
    assert text.endswith("You said: hello there")
    assert final.usage.output_tokens > 10


def test_the_anthropic_sdk_counts_tokens_and_lists_models(anthropic_client: Any) -> None:
    count = anthropic_client.messages.count_tokens(model="claude-x", messages=PROMPT)
    assert count.input_tokens > 0
    assert "claude-sonnet-4.6" in [model.id for model in anthropic_client.models.list()]


def test_the_anthropic_sdk_without_a_token_raises_its_authentication_error(demo: str) -> None:
    import anthropic

    client = anthropic.Anthropic(
        base_url=demo, api_key="any", default_headers={"Authorization": "Basic any"}, max_retries=0
    )
    with pytest.raises(anthropic.AuthenticationError, match="the demo gateway wants"):
        client.messages.create(model="claude-x", max_tokens=100, messages=PROMPT)


def test_the_openai_sdk_gets_a_completion(openai_client: Any) -> None:
    answer = openai_client.chat.completions.create(model="gpt-x", messages=PROMPT)
    assert (answer.model, answer.choices[0].finish_reason) == ("gpt-x", "stop")
    assert str(answer.choices[0].message.content).startswith(HELLO)


def test_the_openai_sdk_gets_a_stream(openai_client: Any) -> None:
    chunks = openai_client.chat.completions.create(model="gpt-x", messages=PROMPT, stream=True)
    text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    assert text.startswith(HELLO)
    assert text.endswith("You said: hello there")
