"""The presets as data: complete, dated and usable as they are."""

import datetime
import re
from pathlib import Path
from typing import Any

import pytest

from mitm_gateway.cli.init import starter
from mitm_gateway.rules import presets
from mitm_gateway.rules.load import parse_rules
from mitm_gateway.rules.problems import RulesError
from mitm_gateway.rules.ruleset import RuleSet
from mitm_gateway.rules.schema import Rule
from support.table import table

# Variables that the presets read unless the rule gives the value.
ENVIRONMENT = {
    "ANTHROPIC_FOUNDRY_RESOURCE": "res",
    "LITELLM_URL": "https://litellm.example.com",
    "CLOUDFLARE_ACCOUNT_ID": "account",
    "CLOUDFLARE_GATEWAY_ID": "gate",
    "GATEWAY_URL": "https://gateway.example.com",
    "AZURE_OPENAI_RESOURCE": "res",
    "ANTHROPIC_AWS_WORKSPACE_ID": "wrkspc_1",
}


def rules(text: str, **environ: str) -> RuleSet:
    return parse_rules(text.encode(), "rules.yaml", environ)


@table("name", presets.names())
def test_a_preset_is_dated_and_names_its_sources(name: str) -> None:
    data = presets.content(name)
    assert datetime.date.fromisoformat(data["date"]) >= datetime.date(2026, 11, 24)
    assert data["title"]
    assert data["sources"]
    for part in ("sources", "unverified", "notes"):
        assert all(isinstance(text, str) and "\n" not in text for text in data[part])


@table("name", presets.names())
def test_a_preset_has_a_path_and_an_auth_scheme(name: str) -> None:
    rule: dict[str, Any] = presets.rule_of(name)
    assert "path" in rule["match"], "without a path, telemetry and settings would be forwarded too"
    assert rule["auth"]["scheme"] in ("bearer", "x-api-key", "api-key", "x-goog-api-key", "keep")
    assert "upstream" in rule or name in ("bedrock", "vertex")


@table("name", presets.names())
def test_init_writes_a_valid_rules_file(name: str) -> None:
    text = starter(name)
    ruleset = rules(text, **ENVIRONMENT)
    assert [rule.preset for rule in ruleset.rules] == [name]
    assert all(rule.credential_names for rule in ruleset.rules)
    assert all(len(line) <= 110 for line in text.splitlines())


@table("name", presets.names())
def test_the_proposals_in_the_comments_of_a_starter_are_valid(name: str) -> None:
    text = presets.content(name)["starter"]
    # A comment that looks like a YAML key is a proposal: each by itself replaces the key of the same name.
    for proposal in re.findall(r"^( *)# (upstream|auth): (.*)$", text, re.MULTILINE):
        indent, key, value = proposal
        changed = re.sub(rf"^{indent}{key}: .*\n", "", text, flags=re.MULTILINE) + f"{indent}{key}: {value}\n"
        if "sigv4" in value:
            changed = re.sub(r"\{env: \w+\}", "{aws: default}", changed)
        rules(changed, **ENVIRONMENT)


def rule_of(preset: str, more: str = "auth: {credential: client}", **environ: str) -> Rule:
    """Return a rule with this preset, which leaves the rest to it."""
    (rule,) = rules(f"rules: [{{preset: {preset}, {more}}}]", **environ).rules
    return rule


def test_a_rule_wins_over_its_preset() -> None:
    own = "upstream: https://mine.example.com/base, auth: {scheme: bearer, credential: client}"
    rule = rule_of("azure-foundry", own)
    assert str(rule.upstream) == "https://mine.example.com/base"
    assert rule.auth
    assert (rule.auth.scheme, rule.auth.credential) == ("bearer", "client")
    assert rule.beta
    assert rule.name == "rule 1"


def test_a_header_of_a_rule_replaces_its_presets_in_any_case() -> None:
    rule = rule_of("github-copilot", "auth: {credential: client}, headers: {set: {editor-version: mine}}")
    assert [name for name in rule.headers.set if name.lower() == "editor-version"] == ["editor-version"]
    assert "Copilot-Integration-Id" in rule.headers.set


def test_a_presets_variable_is_needed_only_where_the_rule_leaves_it_to_the_preset() -> None:
    with pytest.raises(RulesError, match='1:9: "upstream" needs the environment variable "LITELLM_URL"'):
        rule_of("litellm")


def test_the_model_names_of_a_rule_come_before_its_presets() -> None:
    rule = rule_of("github-copilot", "auth: {credential: client}, models: {map: {claude-opus-5-*: mine}}")
    assert rule.models
    assert rule.models.sent_for("claude-opus-5-5") == "mine"
    assert rule.models.sent_for("claude-opus-4-1") == "claude-opus-4.1"


def test_a_glob_of_a_rule_covers_exact_names_of_its_preset() -> None:
    rule = rule_of("github-copilot", "auth: {credential: client}, models: {map: {claude-*: mine}}")
    assert rule.models
    assert rule.models.sent_for("claude-opus-4-8") == "mine"


NAMES = [
    "claude-opus-4-8", "claude-opus-4-8[1m]", "claude-opus-4-8[1M][1m]", "claude-opus-4-8-20260801",
    "claude-opus-4-8-latest", "claude-opus-4-10", "claude-opus-4-1", "claude-opus-4-1-20250805",
    "claude-opus-4-20250514", "claude-opus-4-0", "claude-opus-4", "claude-opus-5", "claude-opus-5-5",
    "claude-opus-5-20270101", "claude-opus-5-5-20270101", "claude-opus-5-latest", "claude-opus-10-12",
    "claude-sonnet-4-6", "claude-sonnet-4-6[1m]", "claude-sonnet-4-5-20250929",
    "claude-sonnet-4-20250514", "claude-sonnet-4-0", "claude-haiku-4-5", "claude-haiku-4-5-20251001",
    "claude-haiku-4-5-20251001[1m]", "claude-fable-5", "claude-fable-5-1-20261101",
    "claude-3-7-sonnet-20250219", "claude-3-7-sonnet-latest", "claude-3-5-haiku-20241022",
    "claude-3-5-sonnet-20241022", "claude-3-opus-20240229", "claude-3-opus-latest",
    "claude-3-haiku-20240307", "claude-opus-4.8", "claude-opus-4.6-fast", "claude-3.7-sonnet",
    "anthropic/claude-opus-4.8", "anthropic.claude-opus-4-8", "us.anthropic.claude-opus-4-6-v1:0",
    "gpt-5.5", "gpt-5.5-codex", "gpt-4o", "gpt-4o-2024-08-06", "gpt-4.1-mini", "o3", "o4-mini",
    "gemini-3-pro", "text-embedding-3-large",
]  # fmt: skip


def version_of(name: str) -> tuple[str, list[str]]:
    """Return the family and the version numbers of a name, without dates, aliases and the vendor's prefix."""
    plain = re.sub(r"(\[1m\])+$|-latest|-20\d{6}", "", name, flags=re.IGNORECASE)
    plain = re.sub(r"^(anthropic|openai)[/.]", "", plain)
    numbers = re.findall(r"\d+", plain)
    while numbers and numbers[-1] == "0":
        numbers.pop()
    return re.sub(r"[\d.-]+", "", plain), numbers


@table("name", presets.names())
def test_no_name_is_mapped_to_another_version(name: str) -> None:
    (rule,) = rules(starter(name), **ENVIRONMENT).rules
    for asked in NAMES:
        sent = rule.models.sent_for(asked) if rule.models else asked
        if rule.models and rule.models.default is None:
            assert version_of(sent) == version_of(asked), asked


@table(
    ("preset", "asked", "sent"),
    [
        ("github-copilot", "claude-opus-4-8", "claude-opus-4.8"),
        ("github-copilot", "claude-opus-4-8[1m]", "claude-opus-4.8"),
        ("github-copilot", "claude-haiku-4-5-20251001", "claude-haiku-4.5"),
        ("github-copilot", "claude-opus-5-5", "claude-opus-5.5"),
        ("github-copilot", "claude-opus-5", "claude-opus-5"),
        ("github-copilot", "claude-opus-4.6-fast", "claude-opus-4.6-fast"),
        ("github-copilot", "claude-3-7-sonnet-20250219", "claude-3.7-sonnet"),
        ("github-copilot", "claude-sonnet-4-20250514", "claude-sonnet-4"),
        ("github-copilot", "claude-sonnet-4-0", "claude-sonnet-4"),
        ("github-copilot", "gpt-5.5", "gpt-5.5"),
        ("openrouter", "claude-opus-4-8", "anthropic/claude-opus-4.8"),
        ("openrouter", "claude-opus-4.8", "anthropic/claude-opus-4.8"),
        ("openrouter", "anthropic/claude-opus-4.8", "anthropic/claude-opus-4.8"),
        ("openrouter", "claude-3-haiku-20240307", "anthropic/claude-3-haiku"),
        ("openrouter", "gpt-5.5", "openai/gpt-5.5"),
        ("openrouter", "o4-mini", "openai/o4-mini"),
        ("bedrock-mantle", "claude-opus-4-8", "anthropic.claude-opus-4-8"),
        ("bedrock-mantle", "claude-haiku-4-5-20251001", "anthropic.claude-haiku-4-5"),
        ("bedrock-mantle", "anthropic.claude-opus-4-8", "anthropic.claude-opus-4-8"),
    ],
)
def test_names_get_the_spelling_of_the_vendor(preset: str, asked: str, sent: str) -> None:
    (rule,) = rules(starter(preset), **ENVIRONMENT).rules
    assert rule.models
    assert rule.models.sent_for(asked) == sent


@pytest.mark.parametrize(
    ("environ", "region"),
    [
        ({}, "us-east-1"), ({"AWS_DEFAULT_REGION": "eu-central-1"}, "eu-central-1"),
        ({"AWS_REGION": "eu-west-1", "AWS_DEFAULT_REGION": "eu-central-1"}, "eu-west-1"),
        ({"AWS_REGION": "", "AWS_DEFAULT_REGION": "eu-central-1"}, "eu-central-1"),
        ({"AWS_PROFILE": "work"}, "ap-south-1"), ({"AWS_DEFAULT_PROFILE": "work"}, "ap-south-1"),
        ({"AWS_PROFILE": "other"}, "us-east-1"),
        ({"AWS_PROFILE": "work", "AWS_DEFAULT_REGION": "eu-central-1"}, "eu-central-1"),
    ],
)  # fmt: skip
def test_the_region_of_aws_is_found_as_its_tools_find_it(
    environ: dict[str, str], region: str, tmp_path: Path
) -> None:
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "config").write_text(
        "[default]\noutput = json\n[profile work]\nregion = ap-south-1\n"
    )
    rule = rule_of("bedrock-mantle", **environ, HOME=str(tmp_path))
    assert str(rule.upstream) == f"https://bedrock-mantle.{region}.api.aws/anthropic"


@table(
    "host",
    ["aiplatform.googleapis.com", "aiplatform.us.rep.googleapis.com", "aiplatform.eu.rep.googleapis.com",
     "us-east5-aiplatform.googleapis.com", "europe-west1-aiplatform.googleapis.com"],
)  # fmt: skip
def test_every_region_of_vertex_is_covered(host: str) -> None:
    assert rules("rules: [{preset: vertex, auth: {credential: client}}]").knows_host(host, 443)


def test_one_preset_serves_all_apis_of_a_provider() -> None:
    for name in ("openrouter", "litellm", "github-copilot", "gateway"):
        ruleset = rules(starter(name), **ENVIRONMENT)
        assert ruleset.knows_host("api.anthropic.com", 443)
        assert ruleset.knows_host("api.openai.com", 443)


def test_copilot_lists_its_models_and_counts_tokens_locally() -> None:
    rule = rule_of("github-copilot")
    assert (rule.respond.models, rule.respond.count_tokens) == (True, "estimate")
    assert rule.models
    assert {"claude-opus-4-8", "claude-sonnet-4-6", "claude-haiku-4-5"} <= rule.models.map.keys()


def test_an_unknown_preset_is_named_with_the_nearest() -> None:
    with pytest.raises(RulesError, match=r'unknown preset "bedrok".*\(did you mean "bedrock"\?\)'):
        rules("rules:\n  - {preset: bedrok}")
