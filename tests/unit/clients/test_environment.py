"""The environment that points a client at the gateway, by rules and client."""

from pathlib import Path

from mitm_gateway.clients import catalogue, environment
from mitm_gateway.clients.api_hosts import CoveredHost, covered_hosts
from mitm_gateway.clients.environment import Changes
from mitm_gateway.rules.load import parse_rules
from mitm_gateway.rules.ruleset import RuleSet
from support.table import table

URL = "http://127.0.0.1:1234"
BUNDLE = Path("/bundle.pem")
ANTHROPIC, OPENAI = "api.anthropic.com", "api.openai.com"
BEDROCK = "bedrock-runtime.*.amazonaws.com"


def ruleset(*rules: str, credentials: str = "{k: {env: K}}") -> RuleSet:
    text = f"credentials: {credentials}\nrules:\n" + "".join(f"  - {rule}\n" for rule in rules)
    return parse_rules(text.encode(), "rules.yaml", {})


def rule(host: str, credential: str = "k") -> str:
    auth = f"{{scheme: bearer, credential: {credential}}}"
    return f'{{match: {{host: "{host}"}}, upstream: https://gw.test, auth: {auth}}}'


def reverse(rules: RuleSet, environ: dict[str, str], client: str = catalogue.ANY) -> Changes:
    program = catalogue.load(client)
    hosts = environment.reachable(program, covered_hosts(rules, environ))
    return environment.reverse(rules, program, [(target, URL) for target in hosts], environ)


def intercept(rules: RuleSet, environ: dict[str, str], client: str = catalogue.ANY) -> Changes:
    return environment.intercept(rules, catalogue.load(client), URL, BUNDLE, environ)


# ---- hosts ----


def test_targets_are_the_hosts_of_known_apis_and_then_all_others() -> None:
    rules = ruleset(rule("gw.corp.test"), rule(OPENAI), rule(ANTHROPIC), rule("*.wild.test"))
    found = covered_hosts(rules, {})
    assert found == (
        CoveredHost(ANTHROPIC, "anthropic"),
        CoveredHost(OPENAI, "openai"),
        CoveredHost("gw.corp.test"),
    )


def test_the_bedrock_host_has_the_region_of_the_aws_tools(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text("[profile work]\nregion = ap-south-1\n")
    environ = {"AWS_PROFILE": "work", "AWS_CONFIG_FILE": str(config)}
    expected = CoveredHost("bedrock-runtime.ap-south-1.amazonaws.com", "bedrock")
    assert covered_hosts(ruleset(rule(BEDROCK)), environ) == (expected,)


@table(
    ("location", "host"),
    [
        ("global", "aiplatform.googleapis.com"),
        ("eu", "aiplatform.eu.rep.googleapis.com"),
        ("europe-west1", "europe-west1-aiplatform.googleapis.com"),
    ],
)
def test_the_vertex_host_is_the_one_that_googles_sdks_build(location: str, host: str) -> None:
    assert covered_hosts(ruleset(rule(host)), {"CLOUD_ML_REGION": location}) == (CoveredHost(host, "vertex"),)


def test_a_host_in_a_rule_covers_its_api_in_any_region() -> None:
    host = "bedrock-runtime.eu-west-3.amazonaws.com"
    assert covered_hosts(ruleset(rule(host)), {}) == (CoveredHost(host, "bedrock"),)


# ---- reverse ----


def test_claude_code_gets_one_key_variable_and_other_programs_both() -> None:
    environ = {"ANTHROPIC_API_KEY": "mine", "CLAUDE_CODE_OAUTH_TOKEN": "mine too"}
    claude = reverse(ruleset(rule(ANTHROPIC)), environ, "claude-code").applied(environ)
    assert claude == {"ANTHROPIC_BASE_URL": URL, "ANTHROPIC_AUTH_TOKEN": "placeholder"}
    other = reverse(ruleset(rule(ANTHROPIC)), environ).applied(environ)
    assert other == {**claude, "ANTHROPIC_API_KEY": "placeholder"}


def test_a_rule_that_moves_the_clients_key_leaves_it() -> None:
    environ = {"ANTHROPIC_API_KEY": "mine"}
    changes = reverse(ruleset(rule(ANTHROPIC, "client")), environ)
    assert changes.applied(environ) == {"ANTHROPIC_API_KEY": "mine", "ANTHROPIC_BASE_URL": URL}


def test_copilot_gets_the_type_of_the_api_whose_address_it_gets() -> None:
    for hosts in (["api.anthropic.com"], ["api.openai.com"], ["api.anthropic.com", "api.openai.com"]):
        put = reverse(ruleset(*map(rule, hosts)), {}, "copilot-cli").set
        is_openai = put["COPILOT_PROVIDER_BASE_URL"].endswith("/v1")
        assert put["COPILOT_PROVIDER_TYPE"] == ("openai" if is_openai else "anthropic"), hosts


def test_codex_gets_arguments_instead_of_variables() -> None:
    changes = reverse(ruleset(rule(OPENAI)), {}, "codex")
    assert changes.arguments[-1].endswith(f'"{URL}/v1"')
    assert "OPENAI_BASE_URL" not in changes.set


@table(
    ("rules", "environ", "switch"),
    [
        ([BEDROCK], {}, "CLAUDE_CODE_USE_BEDROCK"),
        ([ANTHROPIC, BEDROCK], {}, None),
        ([ANTHROPIC, BEDROCK], {"CLAUDE_CODE_USE_BEDROCK": "1"}, "CLAUDE_CODE_USE_BEDROCK"),
        ([ANTHROPIC], {"CLAUDE_CODE_USE_BEDROCK": "1"}, None),
        (["us-east5-aiplatform.googleapis.com"], {"CLAUDE_CODE_USE_BEDROCK": "1"}, "CLAUDE_CODE_USE_VERTEX"),
    ],
)
@table("client", ["claude-code", catalogue.ANY])
def test_a_provider_switch_is_on_only_for_a_provider_that_rules_are_about(
    rules: list[str], environ: dict[str, str], switch: str | None, client: str
) -> None:
    ruled = ruleset(*map(rule, rules))
    for changes in (reverse(ruled, environ, client), intercept(ruled, environ, client)):
        on = {name for name in changes.applied(environ) if name.startswith("CLAUDE_CODE_USE_")}
        assert on == ({switch} if switch else set())


def test_a_base_url_of_the_user_never_stays() -> None:
    environ = {"ANTHROPIC_BASE_URL": "https://elsewhere.test", "OPENAI_BASE_URL": "https://elsewhere.test"}
    assert "ANTHROPIC_BASE_URL" in reverse(ruleset(rule(OPENAI)), environ).unset
    assert {"ANTHROPIC_BASE_URL", "OPENAI_BASE_URL"} <= set(intercept(ruleset(rule(OPENAI)), environ).unset)


@table("variable", ["HTTP_PROXY", "https_proxy", "ALL_PROXY"])
def test_a_users_proxy_gets_an_exception_for_the_listeners(variable: str) -> None:
    environ = {variable: "http://proxy.corp.test", "NO_PROXY": "corp.test"}
    changes = reverse(ruleset(rule(ANTHROPIC)), environ)
    assert changes.set["NO_PROXY"] == "corp.test,127.0.0.1,localhost,::1"
    assert "NO_PROXY" not in reverse(ruleset(rule(ANTHROPIC)), {}).set


# ---- intercept ----


def test_an_intercepted_client_keeps_its_provider_and_gets_a_placeholder_for_its_key() -> None:
    environ = {"CLAUDE_CODE_USE_BEDROCK": "1", "ANTHROPIC_API_KEY": "mine", "AWS_BEARER_TOKEN_BEDROCK": "x"}
    after = intercept(ruleset(rule(BEDROCK)), environ, "claude-code").applied(environ)
    assert after["CLAUDE_CODE_USE_BEDROCK"] == after["CLAUDE_CODE_SKIP_BEDROCK_AUTH"] == "1"
    assert "AWS_BEARER_TOKEN_BEDROCK" not in after
    assert after["HTTPS_PROXY"] == URL


def test_settings_files_are_those_of_the_api_that_the_user_has_chosen() -> None:
    rules = ruleset(rule("generativelanguage.googleapis.com"), rule("us-east5-aiplatform.googleapis.com"))
    assert reverse(rules, {}, "gemini-cli").files
    vertex = reverse(rules, {"GOOGLE_GENAI_USE_VERTEXAI": "1"}, "gemini-cli")
    assert (vertex.files, vertex.set["GOOGLE_GENAI_USE_VERTEXAI"]) == ({}, "true")


# ---- keys ----


@table(
    ("environ", "gone"),
    [
        ({"K": "secret-12"}, {"K"}),
        ({"K": "secret-12", "SAME": "secret-12", "OTHER": "x"}, {"K", "SAME"}),
        ({"K": "secret-12", "URL": "https://u:secret-12@gw.test/", "TEXT": "secret-12 "}, {"K", "URL", "TEXT"}),
        ({"K": "abc", "TEXT": "abcdef", "EQUAL": "abc"}, {"K", "EQUAL"}),
    ],
)  # fmt: skip
def test_variables_with_a_key_of_the_gateway_are_unset_by_any_name_and_in_any_text(
    environ: dict[str, str], gone: set[str]
) -> None:
    rules = ruleset(rule(ANTHROPIC))
    assert set(environment.gateway_keys(rules, environ)) == gone
    for changes in (reverse(rules, environ), intercept(rules, environ)):
        assert not gone & set(changes.applied(environ))


def test_a_key_that_is_known_by_value_is_unset_too() -> None:
    environ = {"ARGUMENT": "from-elsewhere"}
    assert "ARGUMENT" in environment.gateway_keys(ruleset(rule(ANTHROPIC)), environ, ["from-elsewhere"])


@table(
    "text",
    [
        "http://user:from%2Delsewhere@proxy",
        "Basic dXNlcjpmcm9tLWVsc2V3aGVyZQ==",
        '{"key":"from\\u002delsewhere"}',
    ],
)
def test_a_variable_that_contains_a_key_in_another_form_is_unset(text: str) -> None:
    assert "LOGIN" in environment.gateway_keys(ruleset(rule(ANTHROPIC)), {"LOGIN": text}, ["from-elsewhere"])
