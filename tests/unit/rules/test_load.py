"""Rules files become rule sets, or every problem with its position."""

import grp
import json
import os
import pwd
import re
from pathlib import Path

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mitm_gateway.rules.json_schema import json_schema
from mitm_gateway.rules.load import load, parse_rules
from mitm_gateway.rules.problems import RulesError
from mitm_gateway.text.redact import looks_like_key
from support.constants import PACKAGE, RULES_DATA
from support.counted_work import assert_linear, work
from support.table import table

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


@pytest.fixture(scope="module")
def editor() -> jsonschema.Draft202012Validator:
    """The JSON Schema as an editor applies it."""
    schema = json.loads(json.dumps(json_schema()))
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def data_of(path: Path) -> object:
    text = path.read_text()
    return json.loads(text) if text.startswith("{") else yaml.safe_load(text)


@table("path", [path for path in GOOD if "desktop" not in path.stem])
def test_an_editor_accepts_good_files(editor: jsonschema.Draft202012Validator, path: Path) -> None:
    editor.validate(data_of(path))


@table(
    "name",
    [
        "beginner-auth-scheme-spellings", "beginner-body-paths", "beginner-credential-file-as-list", "beginner-hosts",
        "beginner-keys-of-auth", "beginner-lists-for-mappings", "beginner-match-null", "beginner-model-without-map",
        "beginner-models-default-list", "beginner-yes-for-true", "credential-is-empty", "credential-with-two-sources",
        "credential-without-source", "empty-list", "header-test-is-a-number", "header-with-a-number", "host-is-a-boolean",
        "host-is-missing", "match-is-missing", "match-is-text", "misspelt-scheme-key", "model-is-a-number", "path-is-empty",
        "query", "rules-empty", "rules-missing", "ttl-is-a-number", "unknown-key-at-top", "unknown-key-in-rule",
        "unknown-scheme", "unmatched-unknown", "version-unknown",
    ],
)  # fmt: skip
def test_an_editor_shows_mistakes(editor: jsonschema.Draft202012Validator, name: str) -> None:
    assert not editor.is_valid(data_of(RULES_DATA / "bad" / f"{name}.yaml"))


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


@table(
    ("upstream", "names"),
    [
        ("${URL}", "URL"), ("${URL:-demo}", "URL"), ("${URL}${URL}${PART}", "URL and PART"),
        ("${UNSET:-x y}", ""), ("$${URL}", ""), ("gw.test", ""),
    ],
)  # fmt: skip
def test_a_wrong_value_from_the_environment_names_its_variables(upstream: str, names: str) -> None:
    text = f"rules: [{{match: {{host: a.test}}, auth: {{scheme: none}}, upstream: '{upstream}'}}]"
    (problem,) = problems_of(text, {"URL": "gw.test", "PART": "/a"})
    assert problem.startswith('f:1:65: "upstream" ')
    assert problem.partition("; the value is from ")[2] == names
