"""What to do about the errors that users meet most."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mitm_gateway.llm.hints import Answer, hint

ANSWER = Answer(
    400, "application/json", b"", "/v1/messages", scheme="bearer", credential="gw", model="claude-x"
)
EXTRA = 'the upstream does not know a field: put body: {{remove: ["{}"]}} into the rule'
MODEL = 'the upstream does not know the model "claude-x": add it to models.map, or set models.default'
BETA = "the upstream does not know a beta: put beta: {{drop: [{}]}} into the rule"


def anthropic(message: str, kind: str = "invalid_request_error") -> bytes:
    return f'{{"type":"error","error":{{"type":"{kind}","message":"{message}"}}}}'.encode()


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (
            anthropic("Unexpected value(s) `context-management-2025-06-27` for the `anthropic-beta` header."),
            BETA.format("context-management-2025-06-27"),
        ),
        (b'{"message":"invalid beta flag"}', BETA.format("NAME")),
        (anthropic("context_management: Extra inputs are not permitted"), EXTRA.format("context_management")),
        (
            anthropic("tools.0.custom.defer_loading: Extra inputs are not permitted"),
            EXTRA.format("tools[*].defer_loading"),
        ),
        (
            anthropic("system.2.cache_control.ephemeral.scope: Extra inputs are not permitted"),
            EXTRA.format("system[*].cache_control.scope"),
        ),
        (
            anthropic("messages.1.content.0.tool_use.caller: Extra inputs are not permitted"),
            EXTRA.format("messages[*].content[*].caller"),
        ),
        (b'{"error":{"message":"Unknown parameter: \'thinking\'."}}', EXTRA.format("thinking")),
        (b'{"message":"The provided model identifier is invalid."}', MODEL),
        (
            b'{"error":{"message":"The requested model is not supported.","code":"model_not_supported"}}',
            MODEL,
        ),
        (b'{"error":{"message":"Invalid model name passed in model=x"}}', MODEL),
        (anthropic("max_tokens: too large"), None),
    ],
)
def test_bad_requests(body: bytes, expected: str | None) -> None:
    assert hint(replace(ANSWER, body=body)) == expected


@pytest.mark.parametrize(
    "body",
    [
        anthropic("model: claude-x", "not_found_error"),
        b'{"error":{"code":"model_not_found","message":"The model `claude-x` does not exist"}}',
        b'{"error":{"code":"DeploymentNotFound"}}',
    ],
)
def test_a_model_that_is_not_found(body: bytes) -> None:
    assert hint(replace(ANSWER, status=404, body=body)) == MODEL


@pytest.mark.parametrize(
    ("scheme", "credential", "expected"),
    [
        ("bearer", "gw", 'the upstream does not take credential "gw" as bearer: check it, '
                         "or try auth.scheme: x-api-key"),
        ("x-api-key", None, "the upstream does not take the client's key as x-api-key: check it, "
                            "or try auth.scheme: bearer"),
        ("basic", "gw", 'the upstream does not take credential "gw": check it'),
        ("none", None, "the upstream wants a key and the rule sends none: give it auth with a credential"),
    ],
)  # fmt: skip
def test_a_key_in_the_wrong_slot(scheme: str, credential: str | None, expected: str) -> None:
    assert hint(replace(ANSWER, status=401, scheme=scheme, credential=credential)) == expected


@pytest.mark.parametrize("status", [200, 403, 407, 502])
def test_a_firewalls_page(status: int) -> None:
    page = "a page of HTML instead of an answer: a firewall, login or wrong host; check upstream"
    assert hint(replace(ANSWER, status=status, body=b" <!DOCTYPE html><html>")) == page
    assert hint(replace(ANSWER, status=status, content_type="text/html; charset=utf-8")) == page


def test_paths_that_are_not_there() -> None:
    count_tokens = replace(ANSWER, status=404, path="/v1/messages/count_tokens")
    assert hint(count_tokens) == (
        "the upstream has no count_tokens: put respond: {count_tokens: estimate} into the rule"
    )
    assert hint(replace(ANSWER, status=404)) == (
        "the upstream has no such path: check the base path in upstream"
    )


def test_a_redirect_names_the_host_and_nothing_secret() -> None:
    answer = replace(ANSWER, status=307, location="https://user:pw@login.test:8443/x?token=SECRET")
    assert hint(answer) == (
        "the upstream redirects to https://login.test: put the address that answers itself into upstream"
    )
    assert hint(replace(ANSWER, status=302, location="http://[")) == (
        "the upstream redirects: put the address that answers itself into upstream"
    )


@pytest.mark.parametrize("status", [200, 204, 304, 429, 500, 529])
def test_nothing_is_said_where_the_rule_cannot_help(status: int) -> None:
    assert hint(replace(ANSWER, status=status, body=anthropic("Overloaded", "overloaded_error"))) is None


def test_text_of_the_upstream_is_not_repeated() -> None:
    body = anthropic("invalid anthropic-beta sk-secret-0123456789abcdef \\u001b[31m")
    assert hint(replace(ANSWER, body=body)) == BETA.format("NAME")
