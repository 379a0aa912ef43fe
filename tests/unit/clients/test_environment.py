"""What a client's environment has to say, by the rules."""

from __future__ import annotations

from pathlib import Path

import pytest

from mitm_gateway.clients import environment
from mitm_gateway.clients.environment import ANTHROPIC, OPENAI, Target, targets
from mitm_gateway.rules.load import parse_rules
from mitm_gateway.rules.patterns import HostPattern
from mitm_gateway.rules.ruleset import RuleSet

URL = "http://127.0.0.1:1234"
CA, BUNDLE = Path("/ca.pem"), Path("/bundle.pem")


def ruleset(*rules: str, credentials: str = "{k: {env: K}}", **environ: str) -> RuleSet:
    text = f"credentials: {credentials}\nrules:\n" + "".join(f"  - {rule}\n" for rule in rules)
    return parse_rules(text.encode(), "rules.yaml", environ)


GATEWAY = (
    "{match: {host: api.anthropic.com, path: /v1/**}, upstream: https://gw.test, "
    "auth: {scheme: bearer, credential: k}}"
)
OWN_KEY = GATEWAY.replace("credential: k", "credential: client")


def test_each_host_with_rules_is_a_target() -> None:
    both = ruleset(GATEWAY, GATEWAY.replace(ANTHROPIC, OPENAI))
    assert [target.host for target in targets(both, {})] == [ANTHROPIC, OPENAI]
    elsewhere = ruleset(GATEWAY.replace(ANTHROPIC, "gw.corp.test"))
    assert targets(elsewhere, {}) == ()


def test_a_rule_for_one_model_is_about_the_host_too() -> None:
    one = ruleset(GATEWAY.replace("path: /v1/**", 'path: /v1/**, model: "claude-*"'))
    assert [target.host for target in targets(one, {})] == [ANTHROPIC]


@pytest.mark.parametrize(
    ("preset", "environ", "host", "variable"),
    [
        ("bedrock", {}, "bedrock-runtime.us-east-1.amazonaws.com", "ANTHROPIC_BEDROCK_BASE_URL"),
        ("bedrock", {"AWS_REGION": "eu-west-1"}, "bedrock-runtime.eu-west-1.amazonaws.com", "ANTHROPIC_BEDROCK_BASE_URL"),
        ("vertex", {"CLOUD_ML_REGION": "europe-west1"}, "europe-west1-aiplatform.googleapis.com",
         "ANTHROPIC_VERTEX_BASE_URL"),
    ],
)  # fmt: skip
def test_a_providers_own_mode_leads_to_its_host(
    preset: str, environ: dict[str, str], host: str, variable: str
) -> None:
    native = ruleset(f"{{preset: {preset}, auth: {{credential: k}}}}", **environ)
    (target,) = targets(native, environ)
    assert target.host == host
    changes = environment.reverse(native, [(target, URL)], {"ANTHROPIC_BASE_URL": "https://elsewhere"})
    assert changes.set[variable].startswith(URL)
    assert changes.set[f"CLAUDE_CODE_USE_{preset.upper()}"] == "1"
    assert "ANTHROPIC_BASE_URL" in changes.unset
    assert "CLAUDE_CODE_USE_FOUNDRY" in changes.unset
    assert f"CLAUDE_CODE_USE_{preset.upper()}" not in changes.unset


def test_a_rule_that_moves_the_clients_key_leaves_it() -> None:
    environ = {"ANTHROPIC_API_KEY": "mine"}
    own = ruleset(OWN_KEY)
    changes = environment.reverse(own, [(targets(own, environ)[0], URL)], environ)
    assert changes.applied(environ) == {"ANTHROPIC_API_KEY": "mine", "ANTHROPIC_BASE_URL": URL}


def test_a_users_proxy_gets_an_exception_for_the_gateway() -> None:
    rules = ruleset(GATEWAY)
    environ = {"HTTP_PROXY": "http://proxy.corp.test", "NO_PROXY": "corp.test"}
    changes = environment.reverse(rules, [(targets(rules, environ)[0], URL)], environ)
    assert changes.set["NO_PROXY"] == "corp.test,127.0.0.1,localhost"


def test_an_intercepting_gateway_is_trusted_beside_what_was_trusted_before() -> None:
    rules = ruleset(GATEWAY)
    environ = {"NO_PROXY": "corp.test,anthropic.com", "NODE_EXTRA_CA_CERTS": "/corp.pem"}
    changes = environment.intercept(rules, URL, CA, BUNDLE, environ)
    assert changes.set["NO_PROXY"] == "corp.test"
    assert changes.set["HTTPS_PROXY"] == changes.set["https_proxy"] == URL
    assert {changes.set[name] for name in environment.CA_VARIABLES} == {str(BUNDLE)}
    fresh = environment.intercept(rules, URL, CA, BUNDLE, {})
    assert fresh.set["NODE_EXTRA_CA_CERTS"] == str(CA)


def test_variables_with_a_key_of_the_gateway_go_under_every_name() -> None:
    environ = {"K": "secret-1", "SAME": "secret-1", "ARGUMENT": "secret-2", "OTHER": "x"}
    gone = environment.gateway_keys(ruleset(GATEWAY), environ, ["secret-2"])
    assert gone == ("ARGUMENT", "K", "SAME")


@pytest.mark.parametrize(
    ("entry", "host", "hit"),
    [
        ("*", "api.anthropic.com", True),
        ("anthropic.com", "api.anthropic.com", True),
        (".anthropic.com", "api.anthropic.com", True),
        ("*.anthropic.com", "api.anthropic.com", True),
        ("api.anthropic.com:443", "api.anthropic.com", True),
        ("thropic.com", "api.anthropic.com", False),
        ("localhost", "api.anthropic.com", False),
    ],
)
def test_exceptions_of_no_proxy(entry: str, host: str, hit: bool) -> None:
    assert environment.excepts(entry, HostPattern.parse(host)) is hit


def test_a_target_is_what_it_says() -> None:
    rules = ruleset(GATEWAY)
    target = Target(ANTHROPIC, {"ANTHROPIC_BASE_URL": "{url}", "ANTHROPIC_AUTH_TOKEN": "{key}"})
    assert targets(rules, {}) == (target,)
    changes = environment.reverse(rules, [(target, URL)], {})
    assert changes.set == {"ANTHROPIC_BASE_URL": URL, "ANTHROPIC_AUTH_TOKEN": environment.PLACEHOLDER}
