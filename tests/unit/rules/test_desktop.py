"""Claude Desktop's keys and environment variables as rules."""

import json
from typing import Any

import pytest

from mitm_gateway.rules.desktop import is_desktop
from mitm_gateway.rules.from_env import from_environment
from mitm_gateway.rules.load import parse_rules
from mitm_gateway.rules.problems import RulesError
from mitm_gateway.rules.ruleset import RuleSet
from mitm_gateway.rules.schema import Credential
from support.table import table

DESKTOP: dict[str, Any] = {
    "inferenceProvider": "gateway",
    "inferenceGatewayBaseUrl": "https://g.test/a/",
    "inferenceGatewayApiKey": "sk-ant-api03-S3CRETS3CRET",
}
ENVIRON = {
    "ANTHROPIC_AUTH_MODE": "x-api-key",
    "ANTHROPIC_BASE_URL": "https://g.test",
    "ANTHROPIC_API_KEY": "S3CRET",
}


def read(data: dict[str, Any]) -> RuleSet:
    return parse_rules(json.dumps(data).encode(), "f", {})


def problems_of(data: dict[str, Any]) -> list[str]:
    with pytest.raises(RulesError) as raised:
        read(data)
    assert "S3CRET" not in str(raised.value)
    return [problem.text for problem in raised.value.problems]


def credential_of(rules: RuleSet) -> Credential:
    (credential,) = rules.credentials.values()
    return credential


def test_the_three_keys_are_enough() -> None:
    rules = read(DESKTOP)
    (rule,) = rules.rules
    assert [host.name for host in rule.match.host] == ["api.anthropic.com"]
    assert str(rule.upstream) == "https://g.test/a"
    assert rule.auth is not None
    assert rule.auth.scheme == "bearer"
    value = credential_of(rules).value
    assert value is not None
    assert value.reveal() == DESKTOP["inferenceGatewayApiKey"]
    assert "S3CRET" not in f"{rules.rules} {rules.credentials} {rules!r}"


def test_the_auth_scheme_may_be_another_one() -> None:
    (rule,) = read(DESKTOP | {"inferenceGatewayAuthScheme": "x-api-key"}).rules
    assert rule.auth is not None
    assert rule.auth.scheme == "x-api-key"


def test_a_dollar_in_a_desktop_file_is_a_dollar() -> None:
    value = credential_of(read(DESKTOP | {"inferenceGatewayApiKey": "a$$b${C}"})).value
    assert value is not None
    assert value.reveal() == "a$$b${C}"


@table("headers", [{"X-Team": "a"}, '{"X-Team": "a"}', ["X-Team: a"], '["X-Team: a"]'])
def test_custom_headers_are_set_from_every_form_that_desktop_stores(headers: object) -> None:
    assert read(DESKTOP | {"inferenceCustomHeaders": headers}).rules[0].headers.set == {"X-Team": "a"}
    assert read(DESKTOP | {"inferenceGatewayHeaders": headers}).rules[0].headers.set == {"X-Team": "a"}


@table("models", [["a", {"name": "b", "supports1m": True}, "a[1m]"], '["a", {"name": "b"}]'])
def test_model_names_are_listed_once_each(models: object) -> None:
    rules = read(DESKTOP | {"inferenceModels": models})
    assert rules.listed_models == ("a", "b")
    assert rules.rules[0].respond.models
    assert not read(DESKTOP).rules[0].respond.models


@table(
    ("changes", "ttl", "timeout"),
    [
        ({}, 3600.0, 60.0),
        ({"inferenceCredentialHelperTtlSec": "900", "inferenceCredentialHelperTimeoutSec": 5}, 900.0, 5.0),
        ({"inferenceCredentialKind": "helper-script"}, 3600.0, 60.0),
    ],
)
def test_a_helper_takes_precedence_over_the_key(changes: dict[str, Any], ttl: float, timeout: float) -> None:
    credential = credential_of(read(DESKTOP | {"inferenceCredentialHelper": "/bin/helper"} | changes))
    assert credential.value is None
    assert (credential.command, credential.ttl_s, credential.timeout_s) == (("/bin/helper",), ttl, timeout)


def test_with_the_kind_static_only_the_key_counts() -> None:
    changes = {"inferenceCredentialHelper": "/bin/helper", "inferenceCredentialKind": "static"}
    assert credential_of(read(DESKTOP | changes)).value is not None


@table(
    ("provider", "preset"),
    [
        ("anthropic", "anthropic"), ("bedrock", "bedrock"), ("mantle", "bedrock-mantle"), ("vertex", "vertex"),
        ("foundry", "azure-foundry"),
    ],
)  # fmt: skip
def test_another_provider_names_the_fitting_preset(provider: str, preset: str) -> None:
    (problem,) = problems_of({"inferenceProvider": provider, "inferenceGatewayApiKey": "S3CRET"})
    assert problem.endswith(f'use a rule with "preset: {preset}"')


@table(
    ("key", "suggestion"),
    [
        ("inferenceGatewayBaseURI", "inferenceGatewayBaseUrl"),
        ("inferenceGatwayAuthScheme", "inferenceGatewayAuthScheme"),
        ("inferenceModel", "inferenceModels"),
        ("inferenceCustomHeader", "inferenceCustomHeaders"),
    ],
)
def test_a_misspelt_key_is_reported(key: str, suggestion: str) -> None:
    assert problems_of(DESKTOP | {key: "x"}) == [f'unknown key "{key}" (did you mean "{suggestion}"?)']


@table(
    "key",
    [
        "inferenceBedrockRegion", "inferenceVertexProjectId", "inferenceFoundryResource", "inferenceMaxTokensPerWindow",
        "inferenceTokenWindowHours", "inferenceSessionLifetimeSec", "inferenceStreamIdleTimeoutSec", "otlpEndpoint",
        "inferenceZone", "modelDiscoveryEnabled", "coworkEgressAllowedHosts", "permissions", "env",
    ],
)  # fmt: skip
def test_keys_without_meaning_for_a_gateway_are_ignored(key: str) -> None:
    assert len(read(DESKTOP | {key: "x"}).rules) == 1


def test_a_desktop_file_is_recognised_by_its_provider() -> None:
    assert is_desktop(DESKTOP)
    assert not is_desktop({"rules": []})
    assert not is_desktop(["inferenceProvider"])


# ---- environment ----


def test_three_variables_become_one_rule() -> None:
    rules = from_environment(ENVIRON)
    assert rules is not None
    (rule,) = rules.rules
    assert str(rule.upstream) == "https://g.test"
    assert rule.auth is not None
    assert rule.auth.scheme == "x-api-key"
    assert "S3CRET" not in f"{rules.rules} {rules.credentials}"


def test_without_a_mode_there_is_no_environment_form() -> None:
    assert from_environment({}) is None
    assert from_environment(ENVIRON | {"ANTHROPIC_AUTH_MODE": ""}) is None


@table(
    ("changes", "expected"),
    [
        ({"ANTHROPIC_AUTH_MODE": "baerer"},
         'ANTHROPIC_AUTH_MODE is not known; expected one of bearer, x-api-key (did you mean "bearer"?)'),
        ({"ANTHROPIC_BASE_URL": "g.test"}, 'ANTHROPIC_BASE_URL is not a URL; expected "https://host[:port][/base]"'),
        ({"ANTHROPIC_BASE_URL": "http://g.test"},
         'ANTHROPIC_BASE_URL would send the key over plain http; expected "https://…"'),
        ({"ANTHROPIC_BASE_URL": "https://g.test/$TEAM"},
         "ANTHROPIC_BASE_URL contains a variable in another notation"),
    ],
)  # fmt: skip
def test_a_fault_of_the_environment_is_reported(changes: dict[str, str], expected: str) -> None:
    with pytest.raises(RulesError) as raised:
        from_environment(ENVIRON | changes)
    assert str(raised.value) == f"environment: {expected}"


def test_all_faults_of_the_environment_are_reported_at_once() -> None:
    with pytest.raises(RulesError) as raised:
        from_environment({"ANTHROPIC_AUTH_MODE": "S3CRET", "ANTHROPIC_BASE_URL": "https://u:S3CRET@g.test"})
    assert str(raised.value).splitlines() == [
        "environment: ANTHROPIC_AUTH_MODE is not known; expected one of bearer, x-api-key",
        "environment: ANTHROPIC_API_KEY is not set; ANTHROPIC_AUTH_MODE requires it",
        "environment: ANTHROPIC_BASE_URL contains a user name or password",
    ]
