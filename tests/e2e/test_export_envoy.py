"""Every good rules file and preset, exported: Envoy's own validation takes it, and no secret is in it."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from mitm_gateway.envoy import Listener, Options, files, find_unsupported
from mitm_gateway.rules import presets
from mitm_gateway.rules.load import parse_rules
from mitm_gateway.rules.ruleset import RuleSet
from support.constants import API, GW, ROOT, RULES_DATA
from support.envoy import validate

pytestmark = pytest.mark.e2e

GOOD = sorted((RULES_DATA / "good").glob("*.yaml"))
ENV = {
    "ANTHROPIC_FOUNDRY_RESOURCE": "x",
    "CLOUDFLARE_ACCOUNT_ID": "x",
    "CLOUDFLARE_GATEWAY_ID": "x",
    "LITELLM_URL": "https://litellm.example.com",
    "GATEWAY_URL": "https://gateway.example.com",
    "AZURE_OPENAI_RESOURCE": "x",
    "ANTHROPIC_AWS_WORKSPACE_ID": "x",
    "GW_KEY": GW,
}


def options_for(ruleset: RuleSet, folder: Path) -> Options:
    hosts = dict.fromkeys(rule.match.host[0].text.replace("*", "x") for rule in ruleset.rules)
    listeners = tuple(
        Listener("127.0.0.1", 9000 + number, host, int(port or 443))
        for number, (host, _, port) in enumerate(name.partition(":") for name in hosts)
    )
    return Options(
        listeners, config_dir=str(folder), secrets_dir=str(folder / "secrets"), metrics=("0.0.0.0", 9902)
    )


def unsupported(ruleset: RuleSet, options: Options) -> list[str]:
    """Return the reports of keys that cannot be exported, each with its place; these rules have no other fault."""
    problems = find_unsupported(ruleset, options)
    for problem in problems:
        assert problem.pos is not None
        assert any(word in problem.text for word in ("demo", "sigv4", "into the query"))
    return [problem.text for problem in problems]


def assert_valid(program: str, ruleset: RuleSet, options: Options) -> None:
    folder = Path(options.config_dir)
    (folder / "secrets").mkdir()
    for name, text in files(ruleset, options).items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
        assert GW not in text
    done = validate(program, folder / "envoy.yaml")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("file", GOOD, ids=lambda file: file.name)
def test_a_good_file_is_valid_or_refused_with_its_place(
    envoy_program: str, file: Path, tmp_path: Path
) -> None:
    ruleset = parse_rules(file.read_bytes(), file.name, ENV)
    options = options_for(ruleset, tmp_path)
    if not unsupported(ruleset, options):
        assert_valid(envoy_program, ruleset, options)


def test_a_text_that_looks_like_another_type_stays_a_text(envoy_program: str, tmp_path: Path) -> None:
    texts = [*"yYnN~-", "no", "on", "null", "08", "012", "0o17", "1e3", "1.5", "0x1F", "+5", "5.", "1:30"]
    values = ", ".join(f"x-{place}: '{text}'" for place, text in enumerate(texts))
    edits = f"headers: {{set: {{n: a, y: b, {values}}}, remove: [Y-]}}"
    credentials = "credentials: {n: {env: GW_KEY}, y: {env: GW_KEY}}"
    rule = f"match: {{host: y, method: [Y, N]}}, upstream: 'https://n/y', auth: {{scheme: bearer, credential: y}}, {edits}"
    ruleset = parse_rules(f"{credentials}\nrules: [{{name: n, {rule}}}]".encode(), "rules.yaml", ENV)
    assert_valid(envoy_program, ruleset, options_for(ruleset, tmp_path))


def with_presets(names: Sequence[str]) -> RuleSet:
    """Rules that use these presets, each with its own header, so that no rule takes the requests of another."""
    rules = []
    for name in names:
        preset = presets.rule_of(name)
        rule = {"name": name, "preset": name, "match": {**preset["match"], "header": {"x-case": name}}}
        if preset.get("auth", {"scheme": "keep"})["scheme"] != "keep":
            rule["auth"] = {"credential": "gw"}
        rules.append(rule)
    text = yaml.safe_dump({"credentials": {"gw": {"env": "GW_KEY"}}, "rules": rules})
    return parse_rules(text.encode(), "rules.yaml", ENV)


def test_the_presets_are_valid_together(envoy_program: str, tmp_path: Path) -> None:
    alone = {name: with_presets([name]) for name in presets.names()}
    exportable = [name for name, one in alone.items() if not unsupported(one, options_for(one, tmp_path))]
    assert len(exportable) > len(alone) / 2
    ruleset = with_presets(exportable)
    assert_valid(envoy_program, ruleset, options_for(ruleset, tmp_path))


@pytest.mark.parametrize(
    "edit", ['headers: {set: {Authorization: "Bearer ${GW_KEY}"}}', 'query: {set: {api-key: "${GW_KEY}"}}']
)
def test_a_key_from_a_variable_is_not_exported(edit: str, tmp_path: Path) -> None:
    text = f"rules: [{{match: {{host: {API}}}, upstream: 'https://gw.test', {edit}}}]"
    ruleset = parse_rules(text.encode(), "rules.yaml", ENV)
    (problem,) = find_unsupported(ruleset, options_for(ruleset, tmp_path))
    assert "to a key, which the export would contain" in problem.text


def test_the_manifests_agree_with_the_guide() -> None:
    guide = (ROOT / "docs" / "scale.md").read_text()
    documents = list(yaml.safe_load_all((ROOT / "deploy" / "kubernetes.yaml").read_text()))
    assert [document["kind"] for document in documents] == [
        "Deployment", "Service", "HorizontalPodAutoscaler", "PodDisruptionBudget",
    ]  # fmt: skip
    container = documents[0]["spec"]["template"]["spec"]["containers"][0]
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert {"/etc/mitm-gateway", Options().secrets_dir} <= mounts
    assert "--clients /run/secrets/mitm-gateway-clients/clients" in guide
    compose = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())
    assert compose["services"]["envoy"]["image"] == container["image"]
