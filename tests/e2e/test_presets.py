"""Each preset with a real client in that provider's mode, and the request that the provider receives."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import anthropic
import pytest

from mitm_gateway.rules import presets
from support.answers import (
    Answer,
    Seen,
    Stream,
    anthropic_error,
    claude_answers,
    json_reply,
    message,
    message_events,
)
from support.aws import event_stream, signature_fits
from support.certificates import Authority
from support.constants import API, CK
from support.processes import Mitmdump
from support.recorder import Recorder
from support.starters import RunClaude, StartMitmdump, StartRecorder
from support.wire import Wire

pytestmark = pytest.mark.e2e

KEY = "provider-secret-0123456789abcdef"
SECRET_KEY = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
AWS = {
    "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
    "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
    "AWS_SESSION_TOKEN": "session-token-of-the-test",
    "AWS_EC2_METADATA_DISABLED": "true",
}
# Every name under which a key may travel.
AUTH_HEADERS = ("authorization", "x-api-key", "api-key", "x-goog-api-key", "cookie", "proxy-authorization")

Start = Callable[..., "Setting"]


class Setting:
    """A gateway with a preset's rule, and its provider."""

    def __init__(self, upstream: Recorder, proxy: Mitmdump) -> None:
        self.upstream = upstream
        self.proxy = proxy

    def asked(self, path: str) -> Seen:
        """The request to this path, whose only key is the gateway's."""
        request = self.upstream.wait_for_request(path)
        assert CK.encode() not in self.upstream.raw
        assert {each.path for each in self.upstream.requests} == {path}, self.upstream.requests
        return request


@pytest.fixture
def start(recorder: StartRecorder, mitmdump: StartMitmdump, authority: Authority) -> Start:
    """Start a setting: `start(PRESET, upstream host, extra keys of the rule, env=…, listen=host, script=…)`."""

    def run(
        preset: str,
        host: str,
        extra: str = "",
        *,
        env: Mapping[str, str] | None = None,
        listen: str = API,
        script: Any = claude_answers,
        credentials: str = "{env: PROVIDER_KEY}",
        auth: str = "{credential: key}",
    ) -> Setting:
        upstream = recorder(script, tls=authority, names=[host])
        rules = f"""
credentials:
  key: {credentials}
rules:
  - preset: {preset}
    auth: {auth}
{extra}
"""
        proxy = mitmdump(
            rules=rules,
            modes=[f"reverse:https://{listen}"],
            names={f"{host}:443": upstream.port},
            trust=authority.ca_file,
            env={"PROVIDER_KEY": KEY, **(env or {})},
        )
        return Setting(upstream, proxy)

    return run


def keys_in(request: Seen) -> dict[str, list[str]]:
    """All headers of a request that contain a key."""
    return {name: request.values(name) for name in AUTH_HEADERS if request.values(name)}


def betas_in(request: Seen) -> list[str]:
    return [name.strip() for value in request.values("anthropic-beta") for name in value.split(",")]


def messages(setting: Setting, run_claude: RunClaude, env: Mapping[str, str] | None = None) -> None:
    """Claude Code asks through the setting, and prints what the provider said."""
    base = {"ANTHROPIC_BASE_URL": setting.proxy.url, "ANTHROPIC_API_KEY": CK}
    done = run_claude(base if env is None else env)
    assert (done.code, done.stdout) == (0, "hello there\n"), (done, setting.proxy.output())


# ---- Claude Code, Messages API ----


def test_anthropic_takes_messages(start: Start, run_claude: RunClaude) -> None:
    setting = start("anthropic", API)
    messages(setting, run_claude)
    request = setting.asked("/v1/messages")
    assert keys_in(request) == {"x-api-key": [KEY]}
    assert (request.target, request.header("host")) == ("/v1/messages?beta=true", API)
    assert request.json["model"].startswith("claude-")
    assert "claude-code-20250219" in betas_in(request)


def test_github_copilot_takes_messages(start: Start, run_claude: RunClaude) -> None:
    setting = start("github-copilot", "api.githubcopilot.com")
    messages(setting, run_claude)
    request = setting.asked("/v1/messages")
    assert keys_in(request) == {"authorization": [f"Bearer {KEY}"]}
    assert request.header("host") == "api.githubcopilot.com"
    assert (request.header("editor-version") or "").startswith("vscode/1.")
    assert request.header("copilot-integration-id") == "vscode-chat"
    assert re.fullmatch(r"claude-[a-z]+-[0-9]+(\.[0-9]+)?", request.json["model"])
    forwarded = ("interleaved-thinking-", "context-management-", "advanced-tool-use-")
    assert all(name.startswith(forwarded) for name in betas_in(request))
    assert "inference_geo" not in request.json


def test_github_copilot_answers_models_and_counts_here(start: Start) -> None:
    setting = start("github-copilot", "api.githubcopilot.com")
    client = anthropic.Anthropic(base_url=setting.proxy.url, api_key="placeholder", max_retries=0)
    names = [model.id for model in client.models.list()]
    assert names == ["claude-opus-4-8", "claude-sonnet-4-6", "claude-haiku-4-5"]
    counted = client.messages.count_tokens(
        model="claude-opus-4-6", messages=[{"role": "user", "content": "hello " * 60}]
    )
    assert 60 <= counted.input_tokens <= 120
    assert setting.upstream.raw == b""


FOUNDRY = {"ANTHROPIC_FOUNDRY_RESOURCE": "my-res"}


def assert_foundry(request: Seen) -> None:
    assert keys_in(request) == {"x-api-key": [KEY]}
    assert request.header("host") == "my-res.services.ai.azure.com"
    dropped = ("advisor-tool-", "fast-mode-", "fine-grained-tool-streaming-", "token-efficient-tools-")
    assert not any(name.startswith(dropped) for name in betas_in(request))
    assert b'"scope"' not in b"".join(request.body.split(b'"cache_control":')[1:2])


def test_azure_foundry_messages(start: Start, run_claude: RunClaude) -> None:
    setting = start(
        "azure-foundry",
        "my-res.services.ai.azure.com",
        "    models: {map: {claude-*: my-deployment}}",
        env=FOUNDRY,
    )
    messages(setting, run_claude)
    request = setting.asked("/anthropic/v1/messages")
    assert_foundry(request)
    assert request.json["model"] == "my-deployment"


def test_azure_foundry_in_its_own_mode(start: Start, run_claude: RunClaude) -> None:
    setting = start("azure-foundry", "my-res.services.ai.azure.com", env=FOUNDRY)
    env = {
        "CLAUDE_CODE_USE_FOUNDRY": "1",
        "ANTHROPIC_FOUNDRY_BASE_URL": setting.proxy.url,
        "ANTHROPIC_FOUNDRY_API_KEY": CK,
    }
    messages(setting, run_claude, env)
    assert_foundry(setting.asked("/anthropic/v1/messages"))


def test_bedrock_mantle_in_its_own_mode(start: Start, run_claude: RunClaude) -> None:
    setting = start("bedrock-mantle", "bedrock-mantle.eu-west-1.api.aws", env={"AWS_REGION": "eu-west-1"})
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


def test_bedrock_mantle_signed(start: Start, run_claude: RunClaude) -> None:
    host = "bedrock-mantle.us-east-1.api.aws"
    setting = start(
        "bedrock-mantle",
        host,
        "    models: {map: {claude-*: anthropic.claude-opus-4-7}}",
        env=AWS,
        credentials="{aws: default}",
        auth="{scheme: sigv4, service: bedrock-mantle, region: us-east-1, credential: key}",
    )
    messages(setting, run_claude)
    request = setting.asked("/anthropic/v1/messages")
    assert signature_fits(request, SECRET_KEY, service="bedrock-mantle", region="us-east-1")
    assert request.json["model"] == "anthropic.claude-opus-4-7"
    assert request.values("x-api-key") == []


def test_litellm_takes_messages(start: Start, run_claude: RunClaude) -> None:
    env = {"LITELLM_URL": "https://litellm.example.com"}
    setting = start("litellm", "litellm.example.com", "    models: {default: alias}", env=env)
    messages(setting, run_claude)
    request = setting.asked("/v1/messages")
    assert keys_in(request) == {"authorization": [f"Bearer {KEY}"]}
    assert request.json["model"] == "alias"


def test_openrouter_takes_messages(start: Start, run_claude: RunClaude) -> None:
    setting = start("openrouter", "openrouter.ai")
    messages(setting, run_claude)
    request = setting.asked("/api/v1/messages")
    assert keys_in(request) == {"authorization": [f"Bearer {KEY}"]}
    assert request.json["model"].startswith("anthropic/claude-")


# ---- Claude Code, providers with the model in the path ----

RUNTIME = "bedrock-runtime.us-east-1.amazonaws.com"


def bedrock_answers(request: Seen) -> Answer:
    """Bedrock's responses: a binary event stream, and the model in the path only."""
    if request.path.endswith("/invoke-with-response-stream"):
        return event_stream(message_events())
    if request.path.endswith("/invoke"):
        return json_reply(message())
    return anthropic_error(404, "not_found_error", "not here")


def run_bedrock(setting: Setting, run_claude: RunClaude, **env: str) -> Seen:
    """Claude Code in its Bedrock mode, and the streaming request that reached the provider."""
    base = {
        "CLAUDE_CODE_USE_BEDROCK": "1",
        "CLAUDE_CODE_SKIP_BEDROCK_AUTH": "1",
        "ANTHROPIC_BEDROCK_BASE_URL": setting.proxy.url,
        "AWS_REGION": "us-east-1",
    }
    messages(setting, run_claude, {**base, **env})
    asked = [request for request in setting.upstream.requests if request.method == "POST"]
    assert {request.path.rpartition("/")[2] for request in asked} == {"invoke-with-response-stream"}
    request = asked[-1]
    assert request.path.startswith("/model/us.anthropic.claude-")
    assert request.header("host") == RUNTIME
    assert "model" not in request.json
    assert "stream" not in request.json
    assert request.json["anthropic_version"] == "bedrock-2023-05-31"
    return request


def test_bedrock_with_a_bearer_key(start: Start, run_claude: RunClaude) -> None:
    setting = start("bedrock", RUNTIME, listen=RUNTIME, script=bedrock_answers)
    request = run_bedrock(setting, run_claude)
    assert keys_in(request) == {"authorization": [f"Bearer {KEY}"]}


def test_bedrock_signed(start: Start, run_claude: RunClaude) -> None:
    setting = start(
        "bedrock",
        RUNTIME,
        "    models: {map: {us.anthropic.claude-*: 'eu.anthropic.claude-test-v1:0'}}",
        listen=RUNTIME,
        script=bedrock_answers,
        env=AWS,
        credentials="{aws: default}",
        auth="{scheme: sigv4, service: bedrock, region: us-east-1, credential: key}",
    )
    base = {
        "CLAUDE_CODE_USE_BEDROCK": "1",
        "CLAUDE_CODE_SKIP_BEDROCK_AUTH": "1",
        "ANTHROPIC_BEDROCK_BASE_URL": setting.proxy.url,
        "AWS_REGION": "us-east-1",
    }
    messages(setting, run_claude, base)
    request = setting.asked("/model/eu.anthropic.claude-test-v1:0/invoke-with-response-stream")
    assert signature_fits(request, SECRET_KEY, service="bedrock", region="us-east-1")
    assert request.header("x-amz-security-token") == AWS["AWS_SESSION_TOKEN"]


def test_a_clients_own_signature_is_replaced(start: Start, run_claude: RunClaude) -> None:
    setting = start(
        "bedrock",
        RUNTIME,
        listen=RUNTIME,
        script=bedrock_answers,
        env=AWS,
        credentials="{aws: default}",
        auth="{scheme: sigv4, service: bedrock, region: us-east-1, credential: key}",
    )
    client = anthropic.AnthropicBedrock(
        base_url=setting.proxy.url,
        aws_region="us-east-1",
        aws_access_key="AKIDCLIENT",
        aws_secret_key=CK,
        aws_session_token="session-of-the-client",
        max_retries=0,
    )
    answer = client.messages.create(
        model="us.anthropic.claude-test-v1:0", max_tokens=9, messages=[{"role": "user", "content": "hi"}]
    )
    assert answer.content[0].to_dict()["text"] == "hello there"
    (request,) = setting.upstream.requests
    assert request.path.endswith("/invoke")
    assert signature_fits(request, SECRET_KEY, service="bedrock", region="us-east-1")
    assert request.values("x-amz-security-token") == [AWS["AWS_SESSION_TOKEN"]]
    assert b"session-of-the-client" not in setting.upstream.raw
    assert b"AKIDCLIENT" not in setting.upstream.raw


def test_nothing_is_sent_without_aws_keys(start: Start) -> None:
    setting = start(
        "bedrock",
        RUNTIME,
        listen=RUNTIME,
        env={"AWS_EC2_METADATA_DISABLED": "true"},
        credentials="{aws: default}",
        auth="{scheme: sigv4, service: bedrock, region: us-east-1, credential: key}",
    )
    client = anthropic.Anthropic(base_url=setting.proxy.url, api_key="placeholder", max_retries=0)
    with pytest.raises(anthropic.APIStatusError, match='credential "key": no AWS keys'):
        client.post("/model/us.anthropic.claude-test/invoke", body={"messages": []}, cast_to=object)
    assert setting.upstream.raw == b""


VERTEX = "us-east5-aiplatform.googleapis.com"


def vertex_answers(request: Seen) -> Answer:
    """Vertex's responses: Anthropic's JSON and events."""
    if request.path.endswith(":streamRawPredict"):
        return Stream(message_events(), gated=False)
    if request.path.endswith(":rawPredict"):
        return json_reply(message())
    return anthropic_error(404, "not_found_error", "not here")


def test_vertex_in_its_own_mode(start: Start, run_claude: RunClaude) -> None:
    setting = start("vertex", VERTEX, listen=VERTEX, script=vertex_answers)
    env = {
        "CLAUDE_CODE_USE_VERTEX": "1",
        "CLAUDE_CODE_SKIP_VERTEX_AUTH": "1",
        "ANTHROPIC_VERTEX_BASE_URL": f"{setting.proxy.url}/v1",
        "ANTHROPIC_VERTEX_PROJECT_ID": "my-project",
        "CLOUD_ML_REGION": "us-east5",
    }
    messages(setting, run_claude, env)
    request = setting.upstream.requests[-1]
    beginning = "/v1/projects/my-project/locations/us-east5/publishers/anthropic/models/claude-"
    assert request.path.startswith(beginning)
    assert request.path.endswith(":streamRawPredict")
    assert keys_in(request) == {"authorization": [f"Bearer {KEY}"]}
    assert request.header("host") == VERTEX
    assert "model" not in request.json
    assert request.json["anthropic_version"] == "vertex-2023-10-16"
    assert not any(name.startswith(("prompt-caching-scope-", "oauth-")) for name in betas_in(request))
    assert betas_in(request)  # in the header, not in the body
    assert "anthropic_beta" not in request.json


# ---- the Anthropic SDK ----


@pytest.mark.parametrize(
    ("preset", "host", "path", "keys", "extra", "env", "model"),
    [
        pytest.param(
            "cloudflare",
            "gateway.ai.cloudflare.com",
            "/v1/acc/gate/anthropic/v1/messages",
            {"x-api-key": [KEY]},
            '    headers: {set: {cf-aig-authorization: "Bearer ${credential:key}"}}',
            {"CLOUDFLARE_ACCOUNT_ID": "acc", "CLOUDFLARE_GATEWAY_ID": "gate"},
            "claude-opus-4-6",
            id="cloudflare",
        ),
        pytest.param(
            "zai", "api.z.ai", "/api/anthropic/v1/messages", {"authorization": [f"Bearer {KEY}"]},
            "    models: {default: glm-4.6}", {}, "glm-4.6", id="zai",
        ),
        pytest.param(
            "deepseek", "api.deepseek.com", "/anthropic/v1/messages", {"authorization": [f"Bearer {KEY}"]},
            "", {}, "claude-opus-4-6", id="deepseek",
        ),
        pytest.param(
            "kimi", "api.moonshot.ai", "/anthropic/v1/messages", {"authorization": [f"Bearer {KEY}"]},
            "    models: {default: kimi-k2.5}", {}, "kimi-k2.5", id="kimi",
        ),
        pytest.param(
            "gateway", "gw.example.com", "/v1/messages", {"authorization": [f"Bearer {KEY}"]},
            "", {"GATEWAY_URL": "https://gw.example.com/v1"}, "claude-opus-4-6", id="gateway",
        ),
        pytest.param(
            "claude-platform-aws", "aws-external-anthropic.eu-central-1.api.aws", "/v1/messages", {"x-api-key": [KEY]},
            "", {"AWS_DEFAULT_REGION": "eu-central-1", "ANTHROPIC_AWS_WORKSPACE_ID": "w"}, "claude-opus-4-6",
            id="claude-platform-aws",
        ),
    ],
)  # fmt: skip
def test_the_sdk_works_through_both_engines(
    start: Start,
    preset: str,
    host: str,
    path: str,
    keys: dict[str, list[str]],
    extra: str,
    env: dict[str, str],
    model: str,
) -> None:
    setting = start(preset, host, extra, env=env)
    client = anthropic.Anthropic(base_url=setting.proxy.url, api_key=CK, max_retries=0)
    tool: Any = {"name": "t", "input_schema": {"type": "object"}, "defer_loading": True}
    with client.messages.stream(
        model="claude-opus-4-6",
        max_tokens=9,
        messages=[{"role": "user", "content": "hi"}],
        tools=[tool],
        extra_headers={"anthropic-beta": "advanced-tool-use-2025-11-20,interleaved-thinking-2025-05-14"},
    ) as stream:
        assert stream.get_final_message().model == "claude-opus-4-6"
    request = setting.asked(path)
    assert keys_in(request) == keys
    assert request.header("host") == host
    assert request.json["model"] == model
    if preset == "cloudflare":
        assert request.values("cf-aig-authorization") == [f"Bearer {KEY}"]
    if preset == "zai":
        assert betas_in(request) == ["interleaved-thinking-2025-05-14"]
        assert "defer_loading" not in request.json["tools"][0]
    else:
        assert "advanced-tool-use-2025-11-20" in betas_in(request)


def test_kimi_code_is_the_same_preset(start: Start) -> None:
    setting = start(
        "kimi",
        "api.kimi.com",
        "    upstream: https://api.kimi.com/coding\n    models: {default: kimi-k2.5}",
        auth="{scheme: x-api-key, credential: key}",
        script=lambda request: json_reply(message("kimi-for-coding")),
    )
    client = anthropic.Anthropic(base_url=setting.proxy.url, api_key=CK, max_retries=0)
    answer = client.messages.create(
        model="claude-opus-4-6", max_tokens=9, messages=[{"role": "user", "content": "hi"}]
    )
    assert answer.model == "claude-opus-4-6"
    assert keys_in(setting.asked("/coding/v1/messages")) == {"x-api-key": [KEY]}


@pytest.mark.parametrize(
    ("preset", "listen", "host", "target", "sent", "keys", "env"),
    [
        ("openai", "api.openai.com", "api.openai.com", "/v1/responses", "/v1/responses",
         {"authorization": [f"Bearer {KEY}"]}, {}),
        ("azure-openai", "api.openai.com", "res.openai.azure.com", "/v1/chat/completions",
         "/openai/v1/chat/completions", {"api-key": [KEY]}, {"AZURE_OPENAI_RESOURCE": "res"}),
        ("gemini", "generativelanguage.googleapis.com", "generativelanguage.googleapis.com",
         "/v1beta/models/gemini-3:generateContent", "/v1beta/models/gemini-3:generateContent",
         {"x-goog-api-key": [KEY]}, {}),
    ],
)  # fmt: skip
def test_presets_for_other_apis(
    start: Start,
    preset: str,
    listen: str,
    host: str,
    target: str,
    sent: str,
    keys: dict[str, list[str]],
    env: dict[str, str],
) -> None:
    setting = start(preset, host, env=env, listen=listen, script=json_reply({}))
    with Wire(setting.proxy.port) as client:
        headers = [("Host", listen), ("Authorization", f"Bearer {CK}"), ("Content-Type", "application/json")]
        assert client.request("POST", target, headers, b"{}").status == 200
    assert keys_in(setting.asked(sent)) == keys


def test_a_subscription_keeps_its_login_beside_the_gateways_key(start: Start) -> None:
    extra = '    headers: {set: {x-litellm-api-key: "Bearer ${credential:key}"}}'
    setting = start(
        "subscription", "gw.example.com", extra, env={"GATEWAY_URL": "https://gw.example.com"}, auth="{}"
    )
    client = anthropic.Anthropic(base_url=setting.proxy.url, auth_token="sk-ant-oat01-login", max_retries=0)
    client.messages.create(model="m", max_tokens=9, messages=[{"role": "user", "content": "hi"}])
    (request,) = setting.upstream.requests
    assert request.values("authorization") == ["Bearer sk-ant-oat01-login"]
    assert request.values("x-litellm-api-key") == [f"Bearer {KEY}"]


def test_every_preset_has_a_test_in_this_file() -> None:
    text = Path(__file__).read_text(encoding="utf-8")
    assert [name for name in presets.names() if f'"{name}"' not in text] == []


def test_probes_are_answered_here(start: Start) -> None:
    setting = start("deepseek", "api.deepseek.com")
    client = anthropic.Anthropic(base_url=setting.proxy.url, api_key=CK, max_retries=0)
    for path in ("/", "/api/hello", "/anthropic/api/hello"):
        assert client._client.head(setting.proxy.url + path).status_code == 200
    assert setting.upstream.raw == b""
