"""The presets for AWS with real clients: signatures, and the model in the path."""

from typing import Any

import pytest

from support.answers import json_reply, message, message_events
from support.aws import event_stream, signature_fits
from support.constants import CK
from support.fixture_types import RunClaude
from support.presets import KEY, StartPreset, keys_in, messages

pytestmark = pytest.mark.e2e

PROMPT: Any = [{"role": "user", "content": "hi"}]
SECRET_KEY = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
AWS = {
    "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
    "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
    "AWS_SESSION_TOKEN": "session-token-of-the-test",
    "AWS_EC2_METADATA_DISABLED": "true",
}


def test_claude_codes_mode_for_mantle_reaches_bedrock_mantle(
    start_preset: StartPreset, run_claude: RunClaude
) -> None:
    setting = start_preset(
        "bedrock-mantle", "bedrock-mantle.eu-west-1.api.aws", env={"AWS_REGION": "eu-west-1"}
    )
    env = {
        "CLAUDE_CODE_USE_MANTLE": "1",
        "CLAUDE_CODE_SKIP_MANTLE_AUTH": "1",
        "ANTHROPIC_BEDROCK_MANTLE_BASE_URL": setting.proxy.url,
        "AWS_REGION": "eu-west-1",
    }
    messages(setting, run_claude, env)
    request = setting.asked("/anthropic/v1/messages")
    assert keys_in(request) == {"authorization": [f"Bearer {KEY}"]}
    assert request.json["model"].startswith("anthropic.claude-")


def test_requests_to_bedrock_mantle_can_be_signed(start_preset: StartPreset) -> None:
    setting = start_preset(
        "bedrock-mantle",
        "bedrock-mantle.us-east-1.api.aws",
        "    models: {map: {claude-*: anthropic.claude-opus-4-7}}",
        env=AWS,
        **signed("bedrock-mantle"),
    )
    setting.client().messages.create(model="claude-opus-4-7", max_tokens=9, messages=PROMPT)
    request = setting.asked("/anthropic/v1/messages")
    assert signature_fits(request, SECRET_KEY, service="bedrock-mantle", region="us-east-1")
    assert request.json["model"] == "anthropic.claude-opus-4-7"
    assert request.values("x-api-key") == []


RUNTIME = "bedrock-runtime.us-east-1.amazonaws.com"


def signed(service: str) -> dict[str, str]:
    """Keys of AWS and their use, as arguments of `start_preset`."""
    auth = f"{{scheme: sigv4, service: {service}, region: us-east-1, credential: key}}"
    return {"credentials": "{aws: default}", "auth": auth}


def test_claude_codes_mode_for_bedrock_reaches_bedrock(
    start_preset: StartPreset, run_claude: RunClaude
) -> None:
    setting = start_preset("bedrock", RUNTIME, listen=RUNTIME, script=event_stream(message_events()))
    env = {
        "CLAUDE_CODE_USE_BEDROCK": "1",
        "CLAUDE_CODE_SKIP_BEDROCK_AUTH": "1",
        "ANTHROPIC_BEDROCK_BASE_URL": setting.proxy.url,
        "AWS_REGION": "us-east-1",
    }
    messages(setting, run_claude, env)
    asked = [request for request in setting.upstream.requests if request.method == "POST"]
    assert {request.path.rpartition("/")[2] for request in asked} == {"invoke-with-response-stream"}
    request = asked[-1]
    assert request.path.startswith("/model/us.anthropic.claude-")
    assert request.header("host") == RUNTIME
    assert not {"model", "stream"} & request.json.keys()
    assert request.json["anthropic_version"] == "bedrock-2023-05-31"
    assert keys_in(request) == {"authorization": [f"Bearer {KEY}"]}


def test_a_clients_own_signature_is_replaced(start_preset: StartPreset) -> None:
    import anthropic

    setting = start_preset(
        "bedrock",
        RUNTIME,
        "    models: {map: {us.anthropic.claude-*: 'eu.anthropic.claude-test-v1:0'}}",
        listen=RUNTIME,
        script=json_reply(message()),
        env=AWS,
        **signed("bedrock"),
    )
    client = anthropic.AnthropicBedrock(
        base_url=setting.proxy.url,
        aws_region="us-east-1",
        aws_access_key="AKIDCLIENT",
        aws_secret_key=CK,
        aws_session_token="session-of-the-client",
        max_retries=0,
    )
    answer = client.messages.create(model="us.anthropic.claude-test-v1:0", max_tokens=9, messages=PROMPT)
    assert answer.stop_reason == "end_turn"
    request = setting.asked("/model/eu.anthropic.claude-test-v1:0/invoke")
    assert signature_fits(request, SECRET_KEY, service="bedrock", region="us-east-1")
    assert request.values("x-amz-security-token") == [AWS["AWS_SESSION_TOKEN"]]
    assert b"session-of-the-client" not in setting.upstream.raw
    assert b"AKIDCLIENT" not in setting.upstream.raw


def test_nothing_is_sent_without_aws_keys(start_preset: StartPreset) -> None:
    import anthropic

    setting = start_preset(
        "bedrock", RUNTIME, listen=RUNTIME, env={"AWS_EC2_METADATA_DISABLED": "true"}, **signed("bedrock")
    )
    client = setting.client()
    with pytest.raises(anthropic.APIStatusError, match='credential "key": no AWS keys'):
        client.post("/model/us.anthropic.claude-test/invoke", body={"messages": []}, cast_to=object)
    assert setting.upstream.raw == b""
