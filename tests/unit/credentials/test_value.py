"""Usable and unusable secrets."""

import pytest

from mitm_gateway.credentials.value import CredentialError, clean
from support.table import table


@table(
    ("text", "expected"),
    [("abc", "abc"), ("abc\n", "abc"), ("abc\r\n", "abc"), ("Bearer abc\n", "abc"), ("bearer  abc", "abc")],
)
def test_a_secret_is_cleaned(text: str, expected: str) -> None:
    assert clean(text) == expected


@table(
    "text",
    ["", "\n", "a b", "abc\r\nX-Evil: 1", "abc\n\ndef", "a\0b", "é", "abc\n\n", " abc", "a\tb", "Bearer "],
)
def test_an_unusable_secret_is_refused_without_showing_it(text: str) -> None:
    with pytest.raises(CredentialError) as raised:
        clean(text)
    assert text.strip() == "" or text.strip() not in str(raised.value)
