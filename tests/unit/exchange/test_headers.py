"""The head that is written to the upstream: keys, headers and betas."""

from typing import Any

from mitm_gateway.text.redact import KEY_ENDINGS, KEY_NAMES, MASK, masked_header
from support.builders import BEARER, CLIENT, make_head, plan_for, sent_fields
from support.table import table

CLIENT_KEYS = [
    ("x-api-key", "CK1"),
    ("X_API_KEY", "CK2"),
    ("authorization", "Bearer CK3"),
    ("AUTHORIZATION", "Bearer CK4"),
    ("Cookie", "CK5"),
    ("x-litellm-api-key", "Bearer CK6"),
]


@table(
    ("auth", "field"),
    [
        (BEARER, ("Authorization", "Bearer GW-SECRET")),
        ({"scheme": "x-api-key", "credential": "gw"}, ("x-api-key", "GW-SECRET")),
        ({"scheme": "basic", "credential": "gw"}, ("Authorization", "Basic R1ctU0VDUkVU")),
        (
            {"scheme": "header", "name": "X-Key", "prefix": "Key ", "credential": "gw"},
            ("X-Key", "Key GW-SECRET"),
        ),
    ],
)
def test_every_scheme_strips_all_client_keys_and_sends_one(auth: Any, field: tuple[str, str]) -> None:
    head = make_head(headers=[("X-A", "1"), *CLIENT_KEYS, ("X-B", "2")])
    assert sent_fields(head, upstream="https://h.test", auth=auth) == [
        ("Host", "h.test"),
        ("X-A", "1"),
        ("X-B", "2"),
        field,
    ]


def test_keep_leaves_the_clients_keys() -> None:
    head = make_head(headers=CLIENT_KEYS)
    assert sent_fields(head, None, auth={"scheme": "keep"}) == [("Host", "api.anthropic.com"), *CLIENT_KEYS]


def test_headers_are_removed_set_and_added_in_this_order() -> None:
    head = make_head(headers=[("X-Stainless-Lang", "js"), ("X-A", "1"), ("x-a", "2"), ("Accept", "*/*")])
    headers = {"remove": ["x-stainless-*"], "set": {"X-A": "new"}, "add": {"Accept": "text/html"}}
    assert sent_fields(head, None, headers=headers) == [
        ("Host", "api.anthropic.com"),
        ("X-A", "new"),
        ("Accept", "*/*"),
        ("Accept", "text/html"),
    ]


def test_removing_everything_leaves_the_framing() -> None:
    head = make_head(headers={"Content-Length": "3", "X-A": "1"})
    assert sent_fields(head, None, headers={"remove": ["*"]}) == [
        ("Host", "api.anthropic.com"),
        ("Content-Length", "3"),
    ]


@table(
    ("beta", "before", "after"),
    [
        ({"keep": ["a-*"]}, "a-1,b-1, a-2", "a-1,a-2"),
        ({"drop": ["b-*"]}, "a-1,b-1", "a-1"),
        ({"keep": ["a-*"], "rename": {"a-1": "c"}, "add": ["d", "a-2"]}, "a-1,b,a-2", "c,a-2,d"),
        ({"keep": ["a-*"], "drop": ["*"], "add": ["d"]}, "a-1,b", "d"),
        ({"rename": {"b": "a"}}, "a,b", "a"),
        ({"add": ["b"]}, "a,b,a", "a,b"),
        ({"keep": ["x"]}, "a,b", None),
        ({"drop": ["x"]}, "a,  b", "a,  b"),
        ({"add": ["x"]}, None, "x"),
        ({"keep": []}, "", None),
        ({"drop": ["x"]}, "a,,b, ", "a,b"),
    ],
)
def test_betas_are_edited_in_the_header(beta: Any, before: str | None, after: str | None) -> None:
    head = make_head(headers={} if before is None else {"anthropic-beta": before})
    assert dict(sent_fields(head, None, beta=beta)).get("anthropic-beta") == after


def test_connection_does_not_name_the_auth_header() -> None:
    head = make_head(headers={"Connection": "keep-alive, Authorization"})
    assert ("Connection", "keep-alive") in sent_fields(head, upstream="https://h.test", auth=BEARER)


def test_http2_names_the_host_in_the_authority_and_in_lower_case() -> None:
    head = make_head(authority="api.anthropic.com", headers={"host": "api.anthropic.com", "x-a": "1"})
    headers = {"set": {"Editor-Version": "1"}}
    assert sent_fields(head, upstream="https://h.test", auth=BEARER, headers=headers) == [
        ("x-a", "1"),
        ("editor-version", "1"),
        ("authorization", "Bearer GW-SECRET"),
    ]


def test_restored_answers_are_asked_for_uncompressed() -> None:
    head = make_head(headers={"Accept-Encoding": "gzip, br"})
    assert dict(sent_fields(head, None, models={"default": "m"}))["Accept-Encoding"] == "identity"
    kept = dict(sent_fields(head, None, models={"default": "m", "restore": False}))
    assert kept["Accept-Encoding"] == "gzip, br"


@table(
    ("auth", "headers", "after"),
    [
        (BEARER, {}, "a, b"),
        ({"scheme": "none"}, {"authorization": "Bearer token"}, "a, b"),
        ({"scheme": "keep"}, {"authorization": "Bearer token"}, "a,oauth-2025-04-20, b"),
        (CLIENT, {"authorization": "Bearer token"}, "a,oauth-2025-04-20, b"),
        (CLIENT, {"authorization": "Bearer token", "x-api-key": "key"}, "a, b"),
    ],
)
def test_the_beta_of_a_token_leaves_with_it(auth: Any, headers: dict[str, str], after: str) -> None:
    head = make_head(headers={"anthropic-beta": "a,oauth-2025-04-20, b", **headers})
    keys: dict[str, Any] = {} if auth["scheme"] == "keep" else {"upstream": "https://h.test"}
    assert dict(sent_fields(head, None, auth=auth, **keys))["anthropic-beta"] == after


def test_no_empty_header_stays_of_a_tokens_beta() -> None:
    head = make_head(headers={"anthropic-beta": "oauth-2025-04-20"})
    assert "anthropic-beta" not in dict(sent_fields(head, upstream="https://h.test", auth=BEARER))
    added = sent_fields(head, upstream="https://h.test", auth=BEARER, beta={"add": ["oauth-2025-04-20"]})
    assert dict(added)["anthropic-beta"] == "oauth-2025-04-20"


@table("name", sorted({*KEY_NAMES, *KEY_ENDINGS, *(f"x-{ending}" for ending in KEY_ENDINGS)}))
@table("scheme", ["bearer", "none"])
def test_every_name_that_the_views_mask_is_stripped(name: str, scheme: str) -> None:
    assert MASK in masked_header(name, "hunter2")
    auth = BEARER if scheme == "bearer" else {"scheme": "none"}
    head = make_head(f"/v1/x?{name}=hunter2&a=1", headers={name: "hunter2", name.upper(): "hunter2"})
    assert plan_for(head, upstream="https://h.test", auth=auth).target == "/v1/x?a=1"
    fields = sent_fields(head, "GW" if scheme == "bearer" else None, upstream="https://h.test", auth=auth)
    assert "hunter2" not in str(fields)
    kept = sent_fields(
        head, None, upstream="https://h.test", auth={"scheme": "none"}, headers={"set": {name: "own"}}
    )
    assert (name, "own") in kept
