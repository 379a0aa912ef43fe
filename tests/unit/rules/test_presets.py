"""The presets as data: complete, dated and usable as they are."""

from __future__ import annotations

import datetime
import re
from typing import Any

import pytest

from mitm_gateway.cli.init import starter
from mitm_gateway.rules import presets
from mitm_gateway.rules.load import parse_rules
from mitm_gateway.rules.problems import RulesError
from mitm_gateway.rules.ruleset import RuleSet

# Variables that the presets read unless the rule gives the value.
ENVIRONMENT = {
    "ANTHROPIC_FOUNDRY_RESOURCE": "res",
    "LITELLM_URL": "https://litellm.example.com",
    "CLOUDFLARE_ACCOUNT_ID": "account",
    "CLOUDFLARE_GATEWAY_ID": "gate",
}
CONTRACT = (
    "anthropic", "azure-foundry", "bedrock", "bedrock-mantle", "cloudflare", "deepseek", "github-copilot", "kimi",
    "litellm", "openrouter", "vertex", "zai",
)  # fmt: skip


def rules(text: str, **environ: str) -> RuleSet:
    return parse_rules(text.encode(), "rules.yaml", environ)


def test_the_presets_are_those_of_the_contract() -> None:
    assert presets.names() == CONTRACT


@pytest.mark.parametrize("name", CONTRACT)
def test_a_preset_is_dated_and_names_its_sources(name: str) -> None:
    data = presets.describe(name)
    assert datetime.date.fromisoformat(data["date"]) >= datetime.date(2026, 11, 24)
    assert data["title"]
    assert data["sources"]
    for part in ("sources", "unverified", "notes"):
        assert all(isinstance(text, str) and "\n" not in text for text in data[part])


@pytest.mark.parametrize("name", CONTRACT)
def test_a_preset_has_a_path_and_an_auth_scheme(name: str) -> None:
    rule: dict[str, Any] = presets.load(name)
    assert "path" in rule["match"], "without a path, telemetry and settings would be forwarded too"
    assert rule["auth"]["scheme"] in ("bearer", "x-api-key")
    assert "upstream" in rule or name in ("bedrock", "vertex")


@pytest.mark.parametrize("name", CONTRACT)
def test_init_writes_a_valid_rules_file(name: str) -> None:
    text = starter(name)
    ruleset = rules(text, **ENVIRONMENT)
    assert [rule.preset for rule in ruleset.rules] == [name]
    assert all(rule.credential_names for rule in ruleset.rules)
    assert all(len(line) <= 110 for line in text.splitlines())


@pytest.mark.parametrize("name", CONTRACT)
def test_the_proposals_in_the_comments_of_a_starter_are_valid(name: str) -> None:
    text = presets.describe(name)["starter"]
    # A comment that looks like a YAML key is a proposal: each by itself replaces the key of the same name.
    for proposal in re.findall(r"^( *)# (upstream|auth): (.*)$", text, re.MULTILINE):
        indent, key, value = proposal
        changed = re.sub(rf"^{indent}{key}: .*\n", "", text, flags=re.MULTILINE) + f"{indent}{key}: {value}\n"
        if "sigv4" in value:
            changed = re.sub(r"\{env: \w+\}", "{aws: default}", changed)
        rules(changed, **ENVIRONMENT)


def test_a_rule_wins_over_its_preset() -> None:
    (rule,) = rules(
        """
credentials: {k: {env: K}}
rules:
  - preset: azure-foundry
    upstream: https://mine.example.com/base
    auth: {scheme: bearer, credential: k}
"""
    ).rules
    assert str(rule.upstream) == "https://mine.example.com/base"
    assert rule.auth
    assert (rule.auth.scheme, rule.auth.credential) == ("bearer", "k")
    assert rule.beta
    assert rule.name == "rule 1"


def test_a_presets_variable_is_needed_only_where_the_rule_leaves_it_to_the_preset() -> None:
    with pytest.raises(RulesError, match='needs the environment variable "LITELLM_URL"'):
        rules("credentials: {k: {env: K}}\nrules:\n  - {preset: litellm, auth: {credential: k}}")


def test_the_model_names_of_a_rule_come_before_its_presets() -> None:
    (rule,) = rules(
        """
credentials: {k: {env: K}}
rules:
  - preset: github-copilot
    auth: {credential: k}
    models: {map: {claude-opus-5-*: mine}}
"""
    ).rules
    assert rule.models
    assert rule.models.sent_for("claude-opus-5-5") == "mine"
    assert rule.models.sent_for("claude-opus-4-1") == "claude-opus-4.6"


def test_an_unknown_preset_is_named_with_the_nearest() -> None:
    with pytest.raises(RulesError, match=r'unknown preset "bedrok".*\(did you mean "bedrock"\?\)'):
        rules("rules:\n  - {preset: bedrok}")
