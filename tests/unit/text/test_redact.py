"""What may be shown of a secret."""

from __future__ import annotations

import copy
import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mitm_gateway.text.redact import Secret, is_masked, looks_like_key, masked, masked_header, masked_text

VALUE = "sk-ant-api03-0123456789abcdef"


def test_a_secret_shows_itself_to_nobody() -> None:
    secret = Secret(VALUE)
    shown = [
        repr(secret),
        str(secret),
        f"{secret}",
        f"{secret:>40}",
        repr([secret]),
        repr({"a": secret}),
    ]
    assert not any("0123456789" in text for text in shown)
    assert secret.reveal() == VALUE
    assert secret == Secret(VALUE)
    with pytest.raises(TypeError):
        pickle.dumps(secret)
    with pytest.raises(TypeError):
        json.dumps(secret)
    with pytest.raises(TypeError):
        copy.deepcopy(secret)


@pytest.mark.parametrize(
    ("value", "expected"), [("short", "****"), ("a" * 19, "****"), ("a" * 16 + "1a2b", "****1a2b")]
)
def test_the_last_four_characters_of_a_long_secret_show(value: str, expected: str) -> None:
    assert masked(value) == expected


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("Authorization", f"Bearer {VALUE}", "Bearer ****cdef"),
        ("authorization", "token abc", "token ****"),
        ("AUTHORIZATION", VALUE, "****cdef"),
        ("x-api-key", VALUE, "****cdef"),
        ("X_Api_Key", VALUE, "****cdef"),
        ("x-my-token", "abc", "****"),
        ("cookie", "a=b; c=d", "****"),
        ("x-other", f"see {VALUE} there", "see ****cdef there"),
        ("anthropic-version", "2023-06-01", "2023-06-01"),
        ("anthropic-ratelimit-input-tokens-limit", "5000", "5000"),
    ],
)
def test_headers_are_shown_masked(name: str, value: str, expected: str) -> None:
    assert masked_header(name, value) == expected


@given(
    st.sampled_from(["authorization", "x-api-key"]),
    st.text(st.characters(codec="ascii"), min_size=1, max_size=60),
)
def test_a_masked_value_is_known_as_one(name: str, value: str) -> None:
    once = masked_header(name, value)
    if "\n" not in once:
        assert is_masked(once) or value.strip() == ""


def test_known_secrets_are_taken_out_of_any_text() -> None:
    assert masked_text("a gateway-secret-0123456789 b", ["gateway-secret-0123456789", ""]) == "a ****6789 b"


@pytest.mark.parametrize(
    "text",
    [
        VALUE,
        "Bearer sk-or-v1-0123456789abcdef",
        "ghp_" + "a" * 36,
        "github_pat_" + "a" * 30,
        "AKIAABCDEFGHIJKLMNOP",
    ],
)
def test_keys_of_known_shape_are_seen(text: str) -> None:
    assert looks_like_key(text)


@pytest.mark.parametrize(
    "text", ["claude-sonnet-4-6", "https://h.test/sk", "task-list", "vscode/1.104.0", "GITHUB_TOKEN"]
)
def test_ordinary_texts_are_no_keys(text: str) -> None:
    assert not looks_like_key(text)
