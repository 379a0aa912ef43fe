"""Environment variables in the text of a rule."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mitm_gateway.rules.variables import VariableError, expanded
from support.table import table

ENVIRON = {"NAME": "value", "EMPTY": "", "NESTED": "${NAME}", "SECRET": "S3CRET"}


@table(
    ("text", "expected"),
    [
        ("plain", "plain"), ("${NAME}", "value"), ("a${NAME}b${NAME}", "avaluebvalue"), ("${EMPTY}", ""),
        ("${UNSET:-default}", "default"), ("${EMPTY:-default}", "default"), ("${NAME:-default}", "value"),
        ("${UNSET:-}", ""),
        ("${UNSET:-a:-b}", "a:-b"), ("${UNSET:-a$$b}", "a$b"), ("$$", "$"), ("$${NAME}", "${NAME}"),
        ("$$$${NAME}", "$${NAME}"),
        ("$$${NAME}", "$value"), ("$5", "$5"), ("$NAME", "$NAME"), ("a$", "a$"), ("${NESTED}", "${NAME}"),
    ],
)  # fmt: skip
def test_references_are_expanded_as_in_a_shell(text: str, expected: str) -> None:
    assert expanded(text, ENVIRON) == expected


def test_an_unset_variable_is_named() -> None:
    with pytest.raises(VariableError) as raised:
        expanded("${SECRET}${UNSET}", ENVIRON)
    assert str(raised.value) == (
        'needs the environment variable "UNSET", which is not set; '
        'set it, or write a default as in "${UNSET:-text}"'
    )


@table("text", ["${", "${}", "${NAME", "${1X}", "${A B}", "${NAME:default}", "${A:-${B}}", "${ß}"])
def test_a_malformed_reference_is_refused_without_quoting_it(text: str) -> None:
    with pytest.raises(VariableError) as raised:
        expanded(text, ENVIRON)
    expected = 'contains "${" without a name or an end; expected "${NAME}", or "$$" for a dollar sign'
    assert str(raised.value) == expected


def test_a_credential_reference_stays_in_the_values_of_headers() -> None:
    assert expanded("x ${credential:a b} ${NAME}", ENVIRON, credentials=True) == "x ${credential:a b} value"
    with pytest.raises(
        VariableError, match="names a credential, which only the values of headers and of the query may do"
    ):
        expanded("${credential:a}", ENVIRON)
    with pytest.raises(VariableError, match="names no credential"):
        expanded("${credential:}", ENVIRON, credentials=True)


@table(
    ("text", "environ"),
    [
        ("${NAME}", {"NAME": "${credential:two}"}),
        ("a ${credential:one} ${NAME}", {"NAME": "${credential:two}"}),
        ("${NAME}{credential:two}", {"NAME": "$"}),
        ("$${credential:two}", {}),
        ("${NAME:-$$}{credential:two}", {}),
    ],
)
def test_only_the_file_itself_can_name_a_credential(text: str, environ: dict[str, str]) -> None:
    with pytest.raises(VariableError, match="looks like a credential"):
        expanded(text, environ, credentials=True)


@given(st.text("${}:-aA_ ", max_size=20))
def test_any_text_is_expanded_or_refused(text: str) -> None:
    try:
        expanded(text, {"a": "1", "A": ""})
    except VariableError as fault:
        assert str(fault)  # noqa: PT017 - either outcome is fine, another exception is not


@given(st.text(max_size=20))
def test_doubled_dollars_escape_any_text(text: str) -> None:
    assert expanded(text.replace("$", "$$"), {}) == text
