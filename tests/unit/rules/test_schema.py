"""The vocabulary of a rules file: its values, and keys that exclude each other."""

import pytest
from pydantic import ValidationError

from mitm_gateway.rules.edits import BodyEdits
from mitm_gateway.rules.field_paths import parse_path
from mitm_gateway.rules.fields import parse_duration, parse_size
from mitm_gateway.rules.patterns import Glob
from mitm_gateway.rules.schema import Auth, Credential, Match, Rule
from mitm_gateway.text.redact import Secret
from support.table import table


@table(
    ("text", "seconds"), [("500ms", 0.5), ("30s", 30), ("5m", 300), ("1h", 3600), ("1.5h", 5400), ("0.25s", 0.25)]
)  # fmt: skip
def test_a_duration_is_read_in_seconds(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@table("text", ["", "5", "5 m", "5M", "-5s", "0s", "0.0h", "1d", "٣s", "5m\n", "1e3s", ".5s"])
def test_invalid_durations_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration; expected"):
        parse_duration(text)


@table(("text", "size"), [("64KiB", 65_536), ("8MiB", 8 << 20), ("1GiB", 1 << 30), ("5B", 5), ("512", 512)])
def test_a_size_is_read_in_bytes(text: str, size: int) -> None:
    assert parse_size(text) == size


@table("text", ["", "8MB", "8 MiB", "-1KiB", "1.5MiB", "8mib"])
def test_invalid_sizes_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size; expected"):
        parse_size(text)


def test_one_value_is_a_list_of_one() -> None:
    match = Match.model_validate({"host": "A.test.", "method": "post", "header": {"x-a": "b*", "x-c": False}})
    assert [host.name for host in match.host] == ["a.test"]
    assert match.method == ("POST",)
    assert match.header == {"x-a": (Glob("b*"),), "x-c": False}
    assert match.path is None


def test_models_are_frozen_and_refuse_unknown_keys() -> None:
    match = Match.model_validate({"host": "a.test"})
    with pytest.raises(ValidationError):
        match.host = ()  # type: ignore[misc]
    with pytest.raises(ValidationError):
        Match.model_validate({"host": "a.test", "hots": "b.test"})


@table(
    ("auth", "expected"),
    [
        ({"scheme": "sigv4", "credential": "client", "service": "bedrock", "region": "eu"}, "cannot sign"),
        ({"scheme": "bearer", "credential": "a", "name": "x"}, 'has "name"'),
    ],
)
def test_auth_refuses_keys_that_do_not_fit_its_scheme(auth: dict[str, str], expected: str) -> None:
    with pytest.raises(ValidationError, match=expected):
        Auth.model_validate(auth)


def test_body_values_are_json_text() -> None:
    body = BodyEdits.model_validate({"set": {"a.b": {"c": [1, None, "ü"]}}})
    assert [(path.text, text) for path, text in body.set_texts] == [("a.b", '{"c": [1, null, "ü"]}')]


def test_a_rule_knows_its_credentials_and_whether_it_reads_the_body() -> None:
    rule = Rule.model_validate(
        {
            "name": "a",
            "match": {"host": "a.test"},
            "auth": {"scheme": "bearer", "credential": "gw"},
            "headers": {
                "set": {"x-a": "${credential:b}-${credential:gw}"},
                "add": {"x-b": "${credential:c}"},
            },
        }
    )
    assert rule.credential_names == ("gw", "b", "c")
    assert not rule.reads_body
    assert Rule.model_validate({"name": "a", "match": {"host": "a.test", "model": "x"}}).reads_body


def test_a_literal_credential_cannot_be_written_in_a_file_and_is_never_shown() -> None:
    credential = Credential.literal(Secret("S3CRET"))
    assert credential.value == Secret("S3CRET")
    shown = f"{credential!r} {credential} {credential.model_dump()} {credential.model_dump_json()}"
    assert "S3CRET" not in shown
    for key in ("value", "_value"):
        with pytest.raises(ValidationError):
            Credential.model_validate({key: "S3CRET"})
    assert Credential.model_validate({"env": "A"}).value is None


@table("text", ["", ".", "a.", "a..b", "a[", "a[x]", "a[-1]", "[*]", "a]b", "a[*"])
def test_a_wrong_path_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        parse_path(text)
