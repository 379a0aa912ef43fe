"""Masking, and the names and shapes of keys."""

import base64
import copy
import json
import pickle
from collections.abc import Callable
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mitm_gateway.exchange.headers import stripped
from mitm_gateway.text.redact import (
    KEY_ENDINGS,
    KEY_NAMES,
    MASK,
    Secret,
    fields_masked_exactly,
    is_key_header,
    is_key_parameter,
    looks_like_key,
    masked,
    masked_fields,
    masked_header,
    masked_target,
    masked_text,
    without_query_keys,
)
from support.table import table

VALUE = "sk-ant-api03-0123456789abcdef"


def test_a_secret_is_never_shown() -> None:
    secret = Secret(VALUE)
    shown = [repr(secret), str(secret), f"{secret}", f"{secret:>40}", repr([secret]), repr({"a": secret})]
    assert not any("0123456789" in text for text in shown)
    assert secret.reveal() == VALUE
    assert secret == Secret(VALUE)
    with pytest.raises(TypeError):
        pickle.dumps(secret)
    with pytest.raises(TypeError):
        json.dumps(secret)
    with pytest.raises(TypeError):
        copy.deepcopy(secret)


@table(("value", "expected"), [("short", "****"), ("a" * 19, "****"), ("a" * 16 + "1a2b", "****1a2b")])
def test_the_last_four_characters_of_a_long_secret_show(value: str, expected: str) -> None:
    assert masked(value) == expected


@table(
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
    st.sampled_from(["authorization", "x-api-key", "sec-websocket-protocol", "x-a"]),
    st.text(st.characters(codec="ascii"), min_size=1, max_size=60),
)
def test_masking_a_masked_value_changes_nothing(name: str, value: str) -> None:
    once = masked_header(name, value)
    assert masked_header(name, once) == once


def test_a_word_before_a_mask_is_masked_unless_it_is_an_auth_scheme() -> None:
    assert masked_header("authorization", "my-long-secret-value ****1a2b") == "****1a2b"
    assert masked_header("authorization", "my-secret ****") == MASK
    assert masked_header("authorization", "Bearer ****1a2b") == "Bearer ****1a2b"


# Headers and parameters in which clients send keys to gateways and vendors.
KEYS_IN_USE = [
    "authorization", "proxy-authorization", "x-api-key", "api-key", "api_key", "x--api--key", "x.api.key", "apikey",
    "x-apikey", "x-goog-api-key", "key",
    "token", "access_token", "api_token", "sig", "ocp-apim-subscription-key", "subscription-key", "x-functions-key",
    "x-ms-authorization-auxiliary", "x-ms-token-aad-access-token", "x-litellm-api-key", "x-litellm-key",
    "x-portkey-api-key", "x-portkey-virtual-key", "x-portkey-aws-secret-access-key", "x-portkey-aws-access-key-id",
    "x-portkey-aws-session-token", "x-portkey-vertex-service-account-json", "x-portkey-azure-entra-client-secret",
    "cf-aig-authorization", "cf-access-client-secret", "cf-access-token", "cf-access-jwt-assertion", "helicone-auth",
    "x-helicone-auth", "x-bf-vk", "x-bf-api-key", "x-tfy-api-key", "x-openrouter-api-key", "x-vercel-protection-bypass",
    "x-vercel-oidc-token", "x-lobe-chat-auth", "lobe-chat-access-code", "x-apig-appcode", "x-acs-security-token",
    "x-acs-accesskey-id", "x-amz-security-token", "x-amz-signature", "x-amz-credential", "awsaccesskeyid",
    "x-amzn-oidc-data", "x-amzn-oidc-accesstoken", "x-goog-iap-jwt-assertion", "x-goog-iam-authorization-token",
    "x-serverless-authorization", "x-github-token", "private-token", "job-token", "x-anthropic-api-key",
    "anthropic-api-key", "x-openai-api-key", "x-openai-key", "x-anthropic-key", "x-proxy-key", "x-key", "xi-api-key",
    "x-auth-token", "x-auth-key", "x-auth", "x-proxy-auth", "x-access-token", "x-forwarded-access-token", "x-id-token",
    "x-user-token", "x-jwt", "dpop", "x-rapidapi-key", "x-mashape-key", "x-consumer-key", "x-naver-client-secret",
    "x-ncp-apigw-api-key", "dd-application-key", "x-app-secret", "client_secret", "refresh_token", "id_token",
    "password", "passphrase", "pwd", "client_assertion", "x-dashscope-api-key", "cookie",
]  # fmt: skip
# Headers of clients that look a little like one of those.
NO_KEYS = [
    "x-request-id", "x-client-request-id", "idempotency-key", "sec-websocket-key", "x-bf-cache-key",
    "openai-organization", "openai-project", "anthropic-version", "anthropic-beta", "anthropic-workspace-id",
    "x-stainless-lang", "x-claude-code-session-id", "x-app", "session_id", "x-openclaw-session-key", "x-amz-target",
    "x-amz-date", "x-goog-user-project", "helicone-cache-enabled", "x-portkey-provider", "cf-aig-cache-ttl",
    "http-referer", "x-title", "authority", "author", "max-tokens", "surrogate-key", "www-authenticate", "traceparent",
    "host", "x-ratelimit-limit-tokens", "x-prompt-cache-key", "x-keyboard", "tokenizer", "monkey", "session-id",
    "copilot-integration-id", "editor-version", "x-initiator", "ai-resource-group", "x-ms-region",
]  # fmt: skip


@table("name", KEYS_IN_USE)
def test_names_in_use_for_keys_are_known(name: str) -> None:
    assert is_key_header(name.upper())
    assert is_key_parameter(f"{name}=x")


@table("name", NO_KEYS)
def test_other_headers_are_no_keys(name: str) -> None:
    assert not is_key_header(name.upper())


@table("name", sorted(KEY_NAMES) + sorted(KEY_ENDINGS))
def test_every_listed_name_is_masked_in_headers_and_queries(name: str) -> None:
    assert masked_fields(((name.encode(), b"hunter2"),)) == ((name.encode(), b"****"),)
    assert masked_target(f"/v1?a=1&{name}=hunter2") == f"/v1?a=1&{name}=****"


@table(
    "pair",
    ["key=S", "KEY=S", "k%65y=S", "k%2565y=S", "key%00=S", "key%00x=S", "%00key=S", "key[]=S", "key%5Ba%5D=S", "+key+=S",
     "%C2%A0key=S", "subscription-key=S", "X-Amz-Security-Token=S", "x-amz-signature=S", "sig=S", "api.key=S", "key"],
)  # fmt: skip
def test_query_parameters_that_carry_keys_are_removed_and_masked(pair: str) -> None:
    assert is_key_parameter(pair)
    for separator in "&;":
        assert without_query_keys(f"/p?a=%7e{separator}{pair}{separator}b=+") == f"/p?a=%7e{separator}b=+"
        shown = masked_target(f"/p?a=%7e{separator}{pair}{separator}b=+")
        assert shown == f"/p?a=%7e{separator}{pair.partition('=')[0]}=****{separator}b=+"


@table(
    "query",
    [
        "monkey=1", "pageToken=a&pageSize=2", "a&&b", "", "a=key", "$skiptoken=x", "key-board=1", ";;a;",
        "a=b%26",
    ],
)  # fmt: skip
def test_other_query_parameters_stay_byte_for_byte(query: str) -> None:
    assert without_query_keys(f"/p?{query}") == f"/p?{query}"
    assert masked_target(f"/p?{query}") == f"/p?{query}"


def test_a_key_with_a_semicolon_is_removed_whole() -> None:
    assert without_query_keys("/p?key=abc;def&b") == "/p?b"
    assert masked_target("/p?key=abc;def&b") == "/p?key=****&b"


def test_fields_that_frame_the_body_stay_and_secrets_elsewhere_are_masked() -> None:
    fields = ((b"transfer-encoding", b"chunked"), (b"x-a", b"it is chunked-up"), (b"x-b", VALUE.encode()))
    assert masked_fields(fields, ["chunked", "chunked-up"]) == (
        (b"transfer-encoding", b"chunked"),
        (b"x-a", b"it is ****"),
        (b"x-b", b"****cdef"),
    )


@table(
    ("value", "shown", "sent"),
    [
        ("realtime, openai-insecure-api-key.abc, v1", "realtime, openai-insecure-api-key.****, v1", "realtime, v1"),
        ("xai-client-secret.abc.def, v1.2", "xai-client-secret.****, v1.2", "v1.2"),
        ("base64url.bearer.authorization.k8s.io.abc, v4", "base64url.bearer.****.abc, v4", "v4"),
        ("token, abc, v1", "token, ****, v1", "v1"),
        ("Bearer,abc", "Bearer,****", None),
        ("realtime, openai-beta.realtime-v1, graphql-ws", "realtime, openai-beta.realtime-v1, graphql-ws",
         "realtime, openai-beta.realtime-v1, graphql-ws"),
    ],
)  # fmt: skip
def test_only_the_key_among_websocket_protocols_is_masked_and_stripped(
    value: str, shown: str, sent: str | None
) -> None:
    assert masked_header("Sec-WebSocket-Protocol", value) == shown
    assert masked_header("Sec-WebSocket-Protocol", shown) == shown
    left = stripped(((b"sec-websocket-protocol", value.encode()),))
    assert [field[1].decode() for field in left] == ([] if sent is None else [sent])


def test_an_echoed_key_is_masked_in_the_name_of_a_field() -> None:
    fields = ((b"X-long-key-1", b"long-key-1"), (b"X-abc", b"1"))
    assert fields_masked_exactly(fields, ["long-key-1", "abc"]) == ((b"X-****", b"****"), (b"X-abc", b"1"))


@table("secret", ["user:gateway/key+0123456789", "gateway/key", "gateway-key-\xe9\xff?>"])
@table(
    "written",
    [
        lambda secret: "/login?next=" + quote(secret, safe=""),
        lambda secret: quote(quote(quote(secret, safe=""))).lower(),
        lambda secret: json.dumps({"key": secret}).replace("/", "\\/"),
        lambda secret: "".join(f"\\u{ord(each):04x}" for each in secret),
        lambda secret: "Basic " + base64.b64encode(secret.encode()).decode(),
        lambda secret: base64.b64encode(f"a:{secret}:b".encode()).decode(),
        lambda secret: base64.urlsafe_b64encode(f"ab:{secret}".encode()).decode().rstrip("="),
        lambda secret: quote(base64.b64encode(f"user:{secret}".encode())),
        lambda secret: "0x" + secret.encode().hex().upper(),
        lambda secret: "".join(f"\\x{ord(each):02x}" for each in secret),
    ],
)
def test_a_secret_in_another_form_masks_its_value(secret: str, written: Callable[[str], str]) -> None:
    fields = ((b"X-Echo", written(secret).encode()), (b"X-A", b"%2F\\u0041" + b"abcdefgh" * 8))
    assert fields_masked_exactly(fields, [secret]) == ((b"X-Echo", b"****"), fields[1])


def test_known_secrets_are_masked_in_any_text() -> None:
    assert masked_text("a gateway-secret-0123456789 b", ["gateway-secret-0123456789", ""]) == "a ****6789 b"


@table(
    "text",
    [
        VALUE,
        "Bearer sk-or-v1-0123456789abcdef",
        "ghp_" + "a" * 36,
        "github_pat_" + "a" * 30,
        "AKIAABCDEFGHIJKLMNOP",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl",
        "token_eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.",
    ],
)
def test_keys_of_known_shape_are_recognised(text: str) -> None:
    assert looks_like_key(text)
    assert MASK in masked_text(text)


@table("text", ["claude-sonnet-4-6", "https://h.test/sk", "task-list", "vscode/1.104.0", "GITHUB_TOKEN"])
def test_ordinary_text_is_not_taken_for_a_key(text: str) -> None:
    assert not looks_like_key(text)


@table("key", ["a", "x", "on", "json", "true", "false", "chunked", "application", "keep-alive"])
def test_a_key_that_is_a_usual_word_leaves_the_fields_of_a_response_as_they_are(key: str) -> None:
    fields = (
        (b"Content-Type", b"application/json; charset=utf-8"), (b"Connection", b"keep-alive"),
        (b"Transfer-Encoding", b"chunked"), (b"X-Should-Retry", b"false"), (b"X-Is-On", b"only"),
    )  # fmt: skip
    assert fields_masked_exactly(fields, [key]) == fields


@table(
    ("name", "value", "key", "shown"),
    [("X-Echo", "json", "json", "****"),
     ("X-Echo", "Bearer long-key-1", "long-key-1", "Bearer ****"),
     ("X-Echo", "a,long-key-1;b", "long-key-1", "a,****;b"),
     ("Content-Type", "a/b; x=long-key-of-24-characters", "long-key-of-24-characters", "a/b; x=****ters")],
)  # fmt: skip
def test_an_echoed_key_is_masked_in_the_fields_of_a_response(
    name: str, value: str, key: str, shown: str
) -> None:
    assert fields_masked_exactly(((name.encode(), value.encode()),), [key]) == (
        (name.encode(), shown.encode()),
    )
