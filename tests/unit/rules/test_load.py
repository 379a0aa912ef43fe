"""Rules files become rule sets, or every problem with its position."""

import grp
import json
import os
import pwd
import re
from functools import cache
from pathlib import Path

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mitm_gateway.rules.from_env import from_environment
from mitm_gateway.rules.json_schema import json_schema
from mitm_gateway.rules.load import load, parse_rules
from mitm_gateway.rules.problems import RulesError
from mitm_gateway.text.redact import looks_like_key
from support.constants import PACKAGE, RULES_DATA
from support.table import table
from support.work import assert_linear, work

GOOD = sorted((RULES_DATA / "good").glob("*.yaml"))
BAD = sorted((RULES_DATA / "bad").glob("*.yaml"))
_FIX = re.compile(r"expected|did you mean|put |set it|first defined|begins? |remove|lists them")
SCHEMA = PACKAGE / "rules.schema.json"


def problems_of(text: str | bytes, environ: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(RulesError) as raised:
        parse_rules(text.encode() if isinstance(text, str) else text, "f", environ or {})
    return [str(problem) for problem in raised.value.problems]


@table("path", BAD)
def test_each_mistake_is_reported_with_its_position(path: Path) -> None:
    with pytest.raises(RulesError) as raised:
        parse_rules(path.read_bytes(), path.name, {})
    expected = path.with_suffix(".txt")
    if os.environ.get("UPDATE_RULES"):
        expected.write_text(str(raised.value) + "\n")
    assert str(raised.value) + "\n" == expected.read_text()


def test_each_answer_to_a_beginner_names_the_place_and_the_fix() -> None:
    answers = [path for path in BAD if path.stem.startswith("beginner-")]
    assert len(answers) >= 76
    for path in answers:
        for line in path.with_suffix(".txt").read_text().splitlines():
            assert re.match(rf"{re.escape(path.name)}:\d+:\d+: ", line), line
            assert len(line) <= 230, line
            assert _FIX.search(line), line


@table("path", GOOD)
def test_good_files_load(path: Path) -> None:
    assert parse_rules(path.read_bytes(), path.name, {}).rules


def test_the_json_schema_matches_the_models() -> None:
    expected = json.dumps(json_schema(), indent=2) + "\n"
    if os.environ.get("UPDATE_SCHEMA"):
        SCHEMA.write_text(expected)
    assert SCHEMA.read_text() == expected


@cache
def schema_validator() -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text()))


@table("path", [path for path in GOOD if "desktop" not in path.stem])
def test_good_files_fit_the_json_schema(path: Path) -> None:
    text = path.read_text()
    data = json.loads(text) if text.startswith("{") else yaml.safe_load(text)
    schema_validator().validate(data)


@table("name", ["unknown-key-in-rule", "match-is-text", "rules-empty", "unknown-scheme"])
def test_the_json_schema_shows_editors_mistakes(name: str) -> None:
    with pytest.raises(jsonschema.ValidationError):
        schema_validator().validate(yaml.safe_load((RULES_DATA / "bad" / f"{name}.yaml").read_text()))


def test_variables_are_expanded() -> None:
    text = (RULES_DATA / "good" / "variables.yaml").read_bytes()
    rule = parse_rules(text, "f", {"NAME": "named", "UNSET_URL": ""}).rules[0]
    assert (rule.name, str(rule.upstream)) == ("named", "https://h.test/a")
    assert rule.headers.set == {"x-cost": "$5 $6"}


def test_unnamed_rules_are_named_by_their_position() -> None:
    rules = parse_rules((RULES_DATA / "good" / "wider-after-narrower.yaml").read_bytes(), "f", {}).rules
    assert [rule.name for rule in rules] == ["rule 1", "rule 2", "rule 3", "rule 4"]


def test_the_value_of_a_variable_is_not_shown() -> None:
    text = "rules:\n  - match: {host: a.test}\n    upstream: ${URL}\n"
    (problem,) = problems_of(text, {"URL": "https://user:S3CRET@h.test"})
    assert "S3CRET" not in problem


# ---- files ----


def test_a_file_that_others_may_write_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "rules.yaml"
    file.write_bytes((RULES_DATA / "good" / "smallest.yaml").read_bytes())
    file.chmod(0o646)
    with pytest.raises(RulesError, match="others may write this file"):
        load(file, {})
    file.chmod(0o644)
    assert load(file, {}).rules


@pytest.mark.parametrize("kind", ["missing", "directory", "pipe", "device", "large"])
def test_other_kinds_of_files_are_errors_and_never_hang(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "rules.yaml"
    match kind:
        case "directory":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
        case "device":
            path.symlink_to("/dev/zero")
        case "large":
            path.write_text("# " + "x" * (256 * 1024))
    with pytest.raises(RulesError) as raised:
        load(path, {})
    assert str(raised.value).startswith(str(path))


@table("name", ["alias-bomb", "recursion", "too-deep"])
def test_a_bomb_is_refused_with_little_work(name: str) -> None:
    text = (RULES_DATA / "bad" / f"{name}.yaml").read_bytes()
    assert work(lambda: problems_of(text)) < 100_000


@table("match", ["{{host: h{}}}", "{{host: a, path: /{}/**}}"])
def test_the_work_of_loading_grows_with_the_number_of_rules(match: str) -> None:
    def load_many(count: int) -> None:
        text = "rules:\n" + "".join(f"- match: {match.format(number)}\n" for number in range(count))
        assert len(parse_rules(text.encode(), "f", {}).rules) == count

    assert_linear(load_many, 150)


# ---- other forms ----


def test_the_desktop_form_becomes_one_rule() -> None:
    rules = parse_rules((RULES_DATA / "good" / "desktop.yaml").read_bytes(), "f", {})
    (rule,) = rules.rules
    assert str(rule.upstream) == "https://g.test/a"
    assert rule.auth is not None
    assert (rule.auth.scheme, rule.auth.credential) == ("x-api-key", "gateway")
    assert rule.headers.set == {"X-Team": "a"}
    assert rules.listed_models == ("claude-a", "claude-b")
    assert rule.respond.models
    value = rules.credentials["gateway"].value
    assert value is not None
    assert value.reveal() == "sk-whatever-key"
    assert "sk-whatever-key" not in repr(rules.credentials)


def test_the_desktop_helper_becomes_a_command() -> None:
    rules = parse_rules((RULES_DATA / "good" / "desktop-helper.yaml").read_bytes(), "f", {})
    credential = rules.credentials["gateway"]
    assert (credential.command, credential.ttl_s) == (("/usr/bin/helper",), 900.0)


@table(
    "fault",
    [
        'auth: {scheme: bearer, credential: "${CORP_KEY}"}',
        'preset: "${CORP_KEY}"',
        'headers: {set: {x: "${credential:nobody}"}}',
    ],
)
def test_no_message_has_the_value_of_a_variable(fault: str) -> None:
    text = (
        f'rules: [{{name: "of ${{CORP_KEY}}", match: {{host: a.test}}, upstream: "https://b.test", {fault}}}]'
    )
    (problem,) = problems_of(text, {"CORP_KEY": "hunter-22-value"})
    assert "hunter" not in problem
    assert "of ${CORP_KEY}" in problem


def test_the_environment_form_becomes_one_rule() -> None:
    environ = {
        "ANTHROPIC_AUTH_MODE": "bearer",
        "ANTHROPIC_BASE_URL": "https://g.test",
        "ANTHROPIC_API_KEY": "k",
    }
    rules = from_environment(environ)
    assert rules is not None
    assert rules.rules[0].auth is not None
    assert rules.rules[0].auth.scheme == "bearer"
    assert from_environment({"ANTHROPIC_BASE_URL": "https://g.test"}) is None


@table(
    ("changes", "expected"),
    [
        ({"ANTHROPIC_AUTH_MODE": "baerer"},
         'ANTHROPIC_AUTH_MODE is not known; expected one of bearer, x-api-key (did you mean "bearer"?)'),
        ({"ANTHROPIC_API_KEY": ""}, "ANTHROPIC_API_KEY is not set; ANTHROPIC_AUTH_MODE requires it"),
        ({"ANTHROPIC_BASE_URL": "g.test"}, 'ANTHROPIC_BASE_URL is not a URL; expected "https://host[:port][/base]"'),
        ({"ANTHROPIC_BASE_URL": "http://g.test"},
         'ANTHROPIC_BASE_URL would send the key over plain http; expected "https://…"'),
        ({"ANTHROPIC_BASE_URL": "https://g.test/$TEAM"},
         "ANTHROPIC_BASE_URL contains a variable in another notation"),
    ],
)  # fmt: skip
def test_a_wrong_environment_form_is_reported(changes: dict[str, str], expected: str) -> None:
    environ = {
        "ANTHROPIC_AUTH_MODE": "bearer",
        "ANTHROPIC_BASE_URL": "https://g.test",
        "ANTHROPIC_API_KEY": "k",
    }
    with pytest.raises(RulesError) as raised:
        from_environment(environ | changes)
    assert str(raised.value) == f"environment: {expected}"


# ---- properties ----


WORDS = st.sampled_from(
    ["rules:", "- ", "name: a", "match: {host: a.test}", "{", "}", "[", "]", ": ", "\n", "\n  ", "&a ", "*a", "!x ",
     "<<: *a", "auth: {scheme: bearer, credential: gw}", "credentials:", "gw: {env: A}", "'", '"', "${A}", "on", "5"]
)  # fmt: skip
SECRET = "sk-ant-api03-S3CRETS3CRETS3CRET"


@given(st.lists(WORDS | st.just(SECRET), max_size=25).map("".join))
def test_a_secret_in_the_file_is_never_shown(text: str) -> None:
    try:
        parse_rules(text.encode(), "f", {})
    except RulesError as fault:
        assert "S3CRET" not in str(fault)  # noqa: PT017


@table(
    "text",
    [
        f"credentials:\n  {SECRET}: text",
        "credentials:\n  a: $ghp_abcdefghijklmnopqrstuv",
        'credentials:\n  "\\e[31m": text',
        f"rules:\n- {SECRET}",
        f"rules:\n- {SECRET}: 1\n  match: {SECRET}",
        f"{SECRET}: {{}}",
    ],
)
def test_no_message_repeats_a_key_or_an_escape_from_a_name(text: str) -> None:
    with pytest.raises(RulesError) as raised:
        parse_rules(text.encode(), "f", {})
    told = str(raised.value)
    assert not looks_like_key(told)
    assert "\x1b" not in told


# ---- presets ----


def test_the_rule_wins_over_its_preset_and_need_not_set_the_presets_variables() -> None:
    text = (
        "rules:\n- preset: litellm\n  upstream: https://own.test\n  auth: {credential: client}\n"
        "  models: {map: {claude-*: own}}\n"
    )
    (rule,) = parse_rules(text.encode(), "f", {}).rules
    assert str(rule.upstream) == "https://own.test"
    assert rule.auth is not None
    assert (rule.auth.scheme, rule.auth.credential) == ("bearer", "client")
    assert rule.models is not None
    assert rule.models.sent_for("claude-sonnet-4-6") == "own"


def test_a_missing_variable_of_a_preset_is_reported_at_the_rule() -> None:
    (problem,) = problems_of("rules:\n- preset: litellm\n  auth: {credential: client}\n")
    assert problem.startswith(
        'f:2:3: "upstream" needs the environment variable "LITELLM_URL", which is not set'
    )


def test_the_owners_own_group_may_write_a_file_and_a_shared_one_may_not(tmp_path: Path) -> None:
    # Many systems give each user a group of the same name, and a fresh clone files that it may write.
    file = tmp_path / "rules.yaml"
    file.write_bytes((RULES_DATA / "good" / "smallest.yaml").read_bytes())
    file.chmod(0o664)
    if grp.getgrgid(file.stat().st_gid).gr_name == pwd.getpwuid(file.stat().st_uid).pw_name:
        assert load(file, {}).rules
    if os.geteuid() == 0:
        os.chown(file, 0, grp.getgrnam("daemon").gr_gid)
        with pytest.raises(RulesError, match="others may write this file"):
            load(file, {})
