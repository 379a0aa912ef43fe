"""Hints for the errors that users meet most."""

from dataclasses import replace

from mitm_gateway.llm.hints import Failure, base_url_mistake, hint
from support.table import table

FAILURE = Failure(
    400, "application/json", b"", "/v1/messages", scheme="bearer", credential="gw", model="claude-x"
)
EXTRA = 'the upstream does not support a field; add body: {{remove: ["{}"]}} to the rule'
MODEL = 'the upstream does not know the model "claude-x"; add it to models.map, or set models.default'
BETA = "the upstream does not support a beta; add beta: {{drop: [{}]}} to the rule"


def anthropic(message: str, kind: str = "invalid_request_error") -> bytes:
    return f'{{"type":"error","error":{{"type":"{kind}","message":"{message}"}}}}'.encode()


@table(
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
def test_a_bad_request_gets_the_hint_for_its_reason(body: bytes, expected: str | None) -> None:
    assert hint(replace(FAILURE, body=body)) == expected


@table(
    "body",
    [
        anthropic("model: claude-x", "not_found_error"),
        b'{"error":{"code":"model_not_found","message":"The model `claude-x` does not exist"}}',
        b'{"error":{"code":"DeploymentNotFound"}}',
    ],
)
def test_an_unknown_model_gets_a_hint(body: bytes) -> None:
    assert hint(replace(FAILURE, status=404, body=body)) == MODEL


@table(
    ("scheme", "credential", "expected"),
    [
        ("bearer", "gw", 'the upstream rejects credential "gw" as bearer; check the key, '
                         "or try auth.scheme: x-api-key"),
        ("x-api-key", None, "the upstream rejects the client's key as x-api-key; check the key, "
                            "or try auth.scheme: bearer"),
        ("basic", "gw", 'the upstream rejects credential "gw"; check the key'),
        ("none", None, "the upstream requires a key and the rule sends none; add auth with a credential"),
    ],
)  # fmt: skip
def test_a_key_in_the_wrong_header_gets_a_hint(scheme: str, credential: str | None, expected: str) -> None:
    assert hint(replace(FAILURE, status=401, scheme=scheme, credential=credential)) == expected


@table("status", [200, 403, 407, 502])
def test_an_html_page_gets_a_hint(status: int) -> None:
    page = "received an HTML page instead of JSON, from a firewall, a login page or the wrong host; check upstream"
    assert hint(replace(FAILURE, status=status, body=b" <!DOCTYPE html><html>")) == page
    assert hint(replace(FAILURE, status=status, content_type="text/html; charset=utf-8")) == page


def test_a_missing_path_gets_a_hint() -> None:
    count_tokens = replace(FAILURE, status=404, path="/v1/messages/count_tokens")
    assert hint(count_tokens) == (
        "the upstream has no count_tokens; add respond: {count_tokens: estimate} to the rule"
    )
    assert hint(replace(FAILURE, status=404)) == (
        "the upstream has no such path; check the base path in upstream"
    )


@table(
    ("path", "expected"),
    [("/v1/v1/messages", "the path has /v1 twice: remove /v1 from the end of the client's base URL"),
     ("/x/v1beta/v1beta/models/a", "the path has /v1beta twice: remove /v1beta from the end of the client's base URL"),
     ("/messages", "the path has no version: add /v1 to the end of the client's base URL"),
     ("/chat/completions", "the path has no version: add /v1 to the end of the client's base URL"),
     ("//v1/messages", "the path begins with //: remove the slash from the end of the client's base URL"),
     ("/v1/v1x/messages", None), ("/v1/messages", None)],
)  # fmt: skip
def test_a_wrong_base_url_of_the_client_is_named(path: str, expected: str | None) -> None:
    assert base_url_mistake(path) == expected


def test_copilot_errors_name_the_header_and_the_host() -> None:
    image = b'{"error":{"message":"missing required Copilot-Vision-Request header for vision requests"}}'
    assert "Copilot-Vision-Request" in (hint(replace(FAILURE, body=image)) or "")
    assert "https://api.business.githubcopilot.com" in (hint(replace(FAILURE, status=421)) or "")


def test_a_redirect_names_the_host_and_no_secret() -> None:
    answer = replace(FAILURE, status=307, location="https://user:pw@login.test:8443/x?token=SECRET")
    assert hint(answer) == ("the upstream redirects to https://login.test; set upstream to the final address")
    assert hint(replace(FAILURE, status=302, location="http://[")) == (
        "the upstream redirects; set upstream to the final address"
    )


@table("status", [200, 204, 304, 429, 500, 529])
def test_errors_that_no_rule_cures_get_no_hint(status: int) -> None:
    assert hint(replace(FAILURE, status=status, body=anthropic("Overloaded", "overloaded_error"))) is None


def test_text_of_the_upstream_is_not_quoted() -> None:
    body = anthropic("invalid anthropic-beta sk-secret-0123456789abcdef \\u001b[31m")
    assert hint(replace(FAILURE, body=body)) == BETA.format("NAME")
