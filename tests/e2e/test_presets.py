"""Each preset with a real client in that provider's mode, and the request that the provider receives."""

import re
from pathlib import Path
from typing import Any

import pytest

from mitm_gateway.rules import presets
from support.answers import Answer, Seen, Stream, anthropic_error, json_reply, message, message_events
from support.constants import API, CK
from support.presets import KEY, StartPreset, betas_in, keys_in, messages
from support.starters import RunClaude
from support.wire import Wire

pytestmark = pytest.mark.e2e


def test_anthropic_takes_messages(start_preset: StartPreset, run_claude: RunClaude) -> None:
    setting = start_preset("anthropic", API)
    messages(setting, run_claude)
    request = setting.asked("/v1/messages")
    assert keys_in(request) == {"x-api-key": [KEY]}
    assert (request.target, request.header("host")) == ("/v1/messages?beta=true", API)
    assert request.json["model"].startswith("claude-")
    assert "claude-code-20250219" in betas_in(request)


def test_github_copilot_takes_messages(start_preset: StartPreset, run_claude: RunClaude) -> None:
    setting = start_preset("github-copilot", "api.githubcopilot.com")
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


def test_github_copilot_answers_models_and_counts_here(start_preset: StartPreset) -> None:
    setting = start_preset("github-copilot", "api.githubcopilot.com")
    client = setting.client()
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


def test_azure_foundry_messages(start_preset: StartPreset, run_claude: RunClaude) -> None:
    setting = start_preset(
        "azure-foundry",
        "my-res.services.ai.azure.com",
        "    models: {map: {claude-*: my-deployment}}",
        env=FOUNDRY,
    )
    messages(setting, run_claude)
    request = setting.asked("/anthropic/v1/messages")
    assert_foundry(request)
    assert request.json["model"] == "my-deployment"


def test_azure_foundry_in_its_own_mode(start_preset: StartPreset, run_claude: RunClaude) -> None:
    setting = start_preset("azure-foundry", "my-res.services.ai.azure.com", env=FOUNDRY)
    env = {
        "CLAUDE_CODE_USE_FOUNDRY": "1",
        "ANTHROPIC_FOUNDRY_BASE_URL": setting.proxy.url,
        "ANTHROPIC_FOUNDRY_API_KEY": CK,
    }
    messages(setting, run_claude, env)
    assert_foundry(setting.asked("/anthropic/v1/messages"))


def test_litellm_takes_messages(start_preset: StartPreset, run_claude: RunClaude) -> None:
    env = {"LITELLM_URL": "https://litellm.example.com"}
    setting = start_preset("litellm", "litellm.example.com", "    models: {default: alias}", env=env)
    messages(setting, run_claude)
    request = setting.asked("/v1/messages")
    assert keys_in(request) == {"authorization": [f"Bearer {KEY}"]}
    assert request.json["model"] == "alias"


def test_openrouter_takes_messages(start_preset: StartPreset, run_claude: RunClaude) -> None:
    setting = start_preset("openrouter", "openrouter.ai")
    messages(setting, run_claude)
    request = setting.asked("/api/v1/messages")
    assert keys_in(request) == {"authorization": [f"Bearer {KEY}"]}
    assert request.json["model"].startswith("anthropic/claude-")


VERTEX = "us-east5-aiplatform.googleapis.com"


def vertex_answers(request: Seen) -> Answer:
    """Vertex's responses: Anthropic's JSON and events."""
    if request.path.endswith(":streamRawPredict"):
        return Stream(message_events(), gated=False)
    if request.path.endswith(":rawPredict"):
        return json_reply(message())
    return anthropic_error(404, "not_found_error", "not here")


def test_vertex_in_its_own_mode(start_preset: StartPreset, run_claude: RunClaude) -> None:
    setting = start_preset("vertex", VERTEX, listen=VERTEX, script=vertex_answers)
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
    start_preset: StartPreset,
    preset: str,
    host: str,
    path: str,
    keys: dict[str, list[str]],
    extra: str,
    env: dict[str, str],
    model: str,
) -> None:
    setting = start_preset(preset, host, extra, env=env)
    client = setting.client()
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


def test_kimi_code_is_the_same_preset(start_preset: StartPreset) -> None:
    setting = start_preset(
        "kimi",
        "api.kimi.com",
        "    upstream: https://api.kimi.com/coding\n    models: {default: kimi-k2.5}",
        auth="{scheme: x-api-key, credential: key}",
        script=lambda request: json_reply(message("kimi-for-coding")),
    )
    client = setting.client()
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
def test_presets_for_other_apis_send_one_key(
    start_preset: StartPreset,
    preset: str,
    listen: str,
    host: str,
    target: str,
    sent: str,
    keys: dict[str, list[str]],
    env: dict[str, str],
) -> None:
    setting = start_preset(preset, host, env=env, listen=listen, script=json_reply({}))
    with Wire(setting.proxy.port) as client:
        headers = [("Host", listen), ("Authorization", f"Bearer {CK}"), ("Content-Type", "application/json")]
        assert client.request("POST", target, headers, b"{}").status == 200
    assert keys_in(setting.asked(sent)) == keys


def test_a_subscription_keeps_its_login_beside_the_gateways_key(start_preset: StartPreset) -> None:
    extra = '    headers: {set: {x-litellm-api-key: "Bearer ${credential:key}"}}'
    setting = start_preset(
        "subscription", "gw.example.com", extra, env={"GATEWAY_URL": "https://gw.example.com"}, auth="{}"
    )
    client = setting.client(api_key=None, auth_token="sk-ant-oat01-login")
    client.messages.create(model="m", max_tokens=9, messages=[{"role": "user", "content": "hi"}])
    (request,) = setting.upstream.requests
    assert request.values("authorization") == ["Bearer sk-ant-oat01-login"]
    assert request.values("x-litellm-api-key") == [f"Bearer {KEY}"]


def test_every_preset_has_a_test() -> None:
    text = "".join(
        file.read_text(encoding="utf-8") for file in Path(__file__).parent.glob("test_presets*.py")
    )
    assert [name for name in presets.names() if f'"{name}"' not in text] == []


def test_probes_are_answered_here(start_preset: StartPreset) -> None:
    setting = start_preset("deepseek", "api.deepseek.com")
    client = setting.client()
    for path in ("/", "/api/hello", "/anthropic/api/hello"):
        assert client._client.head(setting.proxy.url + path).status_code == 200
    assert setting.upstream.raw == b""
