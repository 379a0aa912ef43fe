"""Each preset: what its provider receives of a request of Claude Code, sent as such or in the provider's own mode."""

import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from mitm_gateway.rules import presets
from support.answers import Answer, Header, Seen, Stream, claude_answers, json_reply, message_events
from support.certificates import Authority
from support.constants import API, CK, JSON
from support.fixture_types import RunClaude
from support.http_client import Response, Wire
from support.mitmdump import Mitmdump
from support.presets import KEY, StartPreset, betas_in, keys_in, messages
from support.recorder import Recorder

pytestmark = pytest.mark.e2e

MODEL, NEW_BETA = "claude-opus-4-8", "advanced-tool-use-2025-11-20"
BEARER = {"authorization": [f"Bearer {KEY}"]}
X_API_KEY = {"x-api-key": [KEY]}
OPENAI, GEMINI = "api.openai.com", "generativelanguage.googleapis.com"


@dataclass(frozen=True, slots=True)
class Provider:
    """A rule with a preset, and the host, path, keys and model of the request that its provider must receive."""

    preset: str
    host: str
    path: str
    keys: Mapping[str, list[str]]
    model: str = MODEL
    rule: str = ""
    second_key: str = ""
    listen: str = API
    target: str = "/v1/messages?beta=true"


GENERATE = "/v1beta/models/gemini-3:generateContent"
PROVIDERS = (
    Provider("anthropic", API, "/v1/messages", X_API_KEY),
    Provider("azure-foundry", "my-res.services.ai.azure.com", "/anthropic/v1/messages", X_API_KEY, "my-deployment",
             "models: {map: {claude-*: my-deployment}}"),
    Provider("azure-openai", "res.openai.azure.com", "/openai/v1/chat/completions", {"api-key": [KEY]},
             listen=OPENAI, target="/v1/chat/completions"),
    Provider("claude-platform-aws", "aws-external-anthropic.eu-central-1.api.aws", "/v1/messages", X_API_KEY),
    Provider("cloudflare", "gateway.ai.cloudflare.com", "/v1/acc/gate/anthropic/v1/messages", X_API_KEY,
             rule='headers: {set: {cf-aig-authorization: "Bearer ${credential:key}"}}', second_key="cf-aig-authorization"),
    Provider("deepseek", "api.deepseek.com", "/anthropic/v1/messages", BEARER),
    Provider("gateway", "gw.example.com", "/v1/messages", BEARER),
    Provider("gemini", GEMINI, GENERATE, {"x-goog-api-key": [KEY]}, listen=GEMINI, target=GENERATE),
    Provider("github-copilot", "api.githubcopilot.com", "/v1/messages", BEARER, "claude-opus-4.8"),
    Provider("kimi", "api.moonshot.ai", "/anthropic/v1/messages", BEARER, "kimi-k2.5", "models: {default: kimi-k2.5}"),
    Provider("kimi", "api.kimi.com", "/coding/v1/messages", X_API_KEY, "kimi-k2.5",
             "{upstream: https://api.kimi.com/coding, models: {default: kimi-k2.5}, "
             "auth: {scheme: x-api-key, credential: key}}"),
    Provider("litellm", "litellm.example.com", "/v1/messages", BEARER, "alias", "models: {default: alias}"),
    Provider("openai", OPENAI, "/v1/responses", BEARER, listen=OPENAI, target="/v1/responses"),
    Provider("openrouter", "openrouter.ai", "/api/v1/messages", BEARER, "anthropic/claude-opus-4.8"),
    Provider("subscription", "gw.example.com", "/v1/messages", {"x-api-key": [CK]}, second_key="x-litellm-api-key",
             rule='{auth: {}, headers: {set: {x-litellm-api-key: "Bearer ${credential:key}"}}}'),
    Provider("zai", "api.z.ai", "/api/anthropic/v1/messages", BEARER, "glm-4.6", "models: {default: glm-4.6}"),
)  # fmt: skip
NAMED = {f"{provider.preset} at {provider.host}": provider for provider in PROVIDERS}
LISTENERS = (API, OPENAI, GEMINI)
ENV = {
    "PROVIDER_KEY": KEY,
    "ANTHROPIC_FOUNDRY_RESOURCE": "my-res",
    "AZURE_OPENAI_RESOURCE": "res",
    "AWS_DEFAULT_REGION": "eu-central-1",
    "ANTHROPIC_AWS_WORKSPACE_ID": "w",
    "CLOUDFLARE_ACCOUNT_ID": "acc",
    "CLOUDFLARE_GATEWAY_ID": "gate",
    "GATEWAY_URL": "https://gw.example.com/v1",
    "LITELLM_URL": "https://litellm.example.com",
}


def rules_of_all() -> str:
    """One rule for each provider; the header `X-Case` keeps them apart."""
    rules = []
    for name, provider in NAMED.items():
        match = presets.rule_of(provider.preset)["match"] | {"header": {"x-case": name}}
        rule = {"name": name, "preset": provider.preset, "match": match, "auth": {"credential": "key"}}
        rules.append(rule | (yaml.safe_load(provider.rule) or {}))
    return yaml.safe_dump({"credentials": {"key": {"env": "PROVIDER_KEY"}}, "rules": rules})


Received = dict[str, tuple[Provider, Response, Seen]]
"""By the name of its rule, each provider, the client's answer and the request that arrived."""


@pytest.fixture(scope="module")
def received(
    authority: Authority, claude: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Received]:
    """Send a request of Claude Code to every provider, through one gateway."""
    headers, body = request_of_claude_code(claude, tmp_path_factory.mktemp("claude"))
    hosts = sorted({provider.host for provider in PROVIDERS})
    found: Received = {}
    with Recorder(answers, tls=authority, names=hosts) as upstream:
        proxy = Mitmdump(
            tmp_path_factory.mktemp("presets"),
            rules=rules_of_all(),
            modes=[f"reverse:https://{host}" for host in LISTENERS],
            names={f"{host}:443": upstream.port for host in hosts},
            trust=authority.ca_file,
            env=ENV,
        )
        for name, provider in NAMED.items():
            with Wire(proxy.ports[LISTENERS.index(provider.listen)]) as client:
                sent = [("Host", "localhost"), ("X-Case", name), *headers]
                answer = client.request("POST", provider.target, sent, body)
            found[name] = provider, answer, upstream.requests[-1]
        proxy.kill()
        yield found


def request_of_claude_code(claude: Path, home: Path) -> tuple[list[Header], bytes]:
    """Return headers and body of a request with betas and a tool of which some providers know nothing."""
    with Recorder(claude_answers) as upstream:
        env = {"ANTHROPIC_BASE_URL": upstream.url, "ANTHROPIC_API_KEY": CK, "ANTHROPIC_MODEL": MODEL}
        env |= {"PATH": os.environ["PATH"], "HOME": str(home)}
        subprocess.run(
            [claude, "-p", "hi"], cwd=home, env=env, stdin=subprocess.DEVNULL, timeout=90, check=True
        )
        asked = upstream.wait_for_request("/v1/messages")
    betas = ",".join([*betas_in(asked), NEW_BETA])
    body = asked.json
    body["tools"][0]["defer_loading"] = True
    return [("x-api-key", CK), JSON, ("anthropic-beta", betas)], json.dumps(body).encode()


def answers(request: Seen) -> Answer:
    return claude_answers(request) if request.path.endswith("/messages") else json_reply({})


def test_a_request_of_claude_code_arrives_with_the_keys_and_the_model_of_its_provider(
    received: Received,
) -> None:
    for name, (provider, answer, request) in received.items():
        assert answer.status == 200, name
        assert (request.header("host"), request.path) == (provider.host, provider.path)
        assert (keys_in(request), request.json["model"]) == (provider.keys, provider.model), name
        if provider.second_key:
            assert request.values(provider.second_key) == [f"Bearer {KEY}"], name
        assert (CK in str(request)) == (provider.preset == "subscription"), name
        if provider.path.endswith("/messages"):
            assert f'"model": "{MODEL}"'.encode() in answer.body, name  # as the client knows it


def test_betas_and_fields_arrive_where_they_are_known(received: Received) -> None:
    requests = {provider.preset: request for provider, _, request in received.values()}
    anthropic, copilot, zai = (requests[name] for name in ("anthropic", "github-copilot", "zai"))
    assert anthropic.target == "/v1/messages?beta=true"
    assert {"claude-code-20250219", NEW_BETA} <= set(betas_in(anthropic))
    assert (copilot.header("editor-version") or "").startswith("vscode/1.")
    assert copilot.header("copilot-integration-id") == "vscode-chat"
    known = ("interleaved-thinking-", "context-management-", "advanced-tool-use-")
    assert all(name.startswith(known) for name in betas_in(copilot))
    assert "inference_geo" not in copilot.json
    assert NEW_BETA not in betas_in(zai)
    assert "defer_loading" not in zai.json["tools"][0]
    assert_foundry(requests["azure-foundry"])


def assert_foundry(request: Seen) -> None:
    dropped = ("advisor-tool-", "fast-mode-", "fine-grained-tool-streaming-", "token-efficient-tools-")
    assert not any(name.startswith(dropped) for name in betas_in(request))
    assert b'"scope"' not in b"".join(request.body.split(b'"cache_control":')[1:2])


# ---- in the provider's own mode ----


def test_claude_codes_mode_for_foundry_reaches_azure_foundry(
    start_preset: StartPreset, run_claude: RunClaude
) -> None:
    setting = start_preset("azure-foundry", "my-res.services.ai.azure.com", env=ENV)
    env = {
        "CLAUDE_CODE_USE_FOUNDRY": "1",
        "ANTHROPIC_FOUNDRY_BASE_URL": setting.proxy.url,
        "ANTHROPIC_FOUNDRY_API_KEY": CK,
    }
    messages(setting, run_claude, env)
    request = setting.asked("/anthropic/v1/messages")
    assert keys_in(request) == X_API_KEY
    assert_foundry(request)


VERTEX = "us-east5-aiplatform.googleapis.com"


def test_claude_codes_mode_for_vertex_reaches_vertex(
    start_preset: StartPreset, run_claude: RunClaude
) -> None:
    setting = start_preset("vertex", VERTEX, listen=VERTEX, script=Stream(message_events(), gated=False))
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
    assert keys_in(request) == BEARER
    assert request.header("host") == VERTEX
    assert "model" not in request.json
    assert request.json["anthropic_version"] == "vertex-2023-10-16"
    assert not any(name.startswith(("prompt-caching-scope-", "oauth-")) for name in betas_in(request))
    assert betas_in(request)  # in the header, not in the body
    assert "anthropic_beta" not in request.json


def test_every_preset_has_a_test() -> None:
    text = "".join(
        file.read_text(encoding="utf-8") for file in Path(__file__).parent.glob("test_presets*.py")
    )
    assert [name for name in presets.names() if f'"{name}"' not in text] == []
