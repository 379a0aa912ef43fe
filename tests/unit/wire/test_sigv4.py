"""Signatures for AWS: where botocore is missing, and what is signed."""

import pytest

from mitm_gateway.rules.load import parse_rules
from mitm_gateway.rules.problems import RulesError
from mitm_gateway.text.redact import Secret
from mitm_gateway.wire import sigv4

RULES = b"""\
credentials: {k: {aws: default}}
rules:
  - match: {host: bedrock-runtime.us-east-1.amazonaws.com}
    auth: {scheme: sigv4, service: bedrock, region: us-east-1, credential: k}
"""


def test_without_botocore_a_rule_that_signs_is_an_error_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sigv4, "is_available", lambda: False)
    with pytest.raises(RulesError) as raised:
        parse_rules(RULES, "rules.yaml", {})
    (problem,) = raised.value.problems
    assert str(problem).startswith("rules.yaml:4:20: ")
    assert "needs botocore; " in str(problem)
    assert "-m pip install 'botocore>=1.34'" in str(problem)


def test_a_signature_of_the_client_is_replaced() -> None:
    before = (
        (b"Host", b"h"),
        (b"X-Amz-Date", b"20200101T000000Z"),
        (b"x-amz-security-token", b"theirs"),
        (b"Content-Type", b"application/json"),
        (b"X-Other", b"kept"),
    )
    keys = sigv4.AwsKeys("AKID", Secret("s"), Secret("ours"))
    after = sigv4.signed(before, "POST", "https://h/p", b"{}", keys, service="bedrock", region="us-east-1")
    named = {name.lower(): value for name, value in after}
    assert len(named) == len(after)
    assert named[b"x-amz-security-token"] == b"ours"
    assert named[b"x-amz-date"] != b"20200101T000000Z"
    assert named[b"x-other"] == b"kept"
    assert b"SignedHeaders=content-type;host;x-amz-date;x-amz-security-token," in named[b"authorization"]


def test_the_parts_of_a_key_are_masked_everywhere() -> None:
    keys = sigv4.AwsKeys("AKID", Secret("very-secret"), Secret("session"))
    assert [secret.reveal() for secret in keys.secrets] == ["very-secret", "session"]
    assert "very-secret" not in repr(keys)


def test_a_missing_profile_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    with pytest.raises(sigv4.AwsError, match="the AWS profile does not exist"):
        sigv4.provider("no-such-profile")
