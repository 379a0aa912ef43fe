"""Web pages as clients: listed origins, preflights, and which pages may read a response."""

from typing import Any

import pytest

from mitm_gateway.exchange.guard import Policy, check_admission, listed_origin
from mitm_gateway.exchange.local_answers import LocalAnswer
from mitm_gateway.exchange.plan import Plan, decide
from mitm_gateway.exchange.web_pages import fields_for_pages, page_headers, preflight
from mitm_gateway.wire.addresses import parse_origin
from mitm_gateway.wire.request import Arrival
from support.builders import BEARER, make_head, make_rule, make_ruleset
from support.table import table

PAGE = "https://App.example"
POLICY = Policy(origins=frozenset({"https://app.example", "vscode-webview://*"}))
ALLOW = (b"access-control-allow-origin", b"https://App.example")
VARY = (b"vary", b"Origin")


@table(
    ("origin", "expected"),
    [
        ("https://app.example", True),
        ("HTTPS://APP.EXAMPLE/", True),
        ("vscode-webview://0f3a", True),
        ("https://app.example.evil.test", False),
        ("https://evil.test", False),
        ("vscode-webview://", False),
        ("vscode-webview://a/b", False),
        ("vscode-webview://a, https://evil.test", False),
        ("vscode-webview://*", False),
        ("xvscode-webview://a", False),
        ("null", False),
        ("", False),
    ],
)
def test_an_origin_is_listed_whole_or_by_its_scheme(origin: str, expected: bool) -> None:
    assert listed_origin(origin, POLICY) is expected


@table("text", ["vscode-webview://*", "https://a.test:8443", "app://-", "tauri://localhost"])
def test_any_scheme_and_a_star_as_the_host_can_be_listed(text: str) -> None:
    assert parse_origin(text) == text


@table("text", ["null", "*", "https://*.a.test", "https://a/b", "https://a,b", "https://"])
def test_anything_else_cannot_be_listed(text: str) -> None:
    with pytest.raises(ValueError, match="not an origin"):
        parse_origin(text)


def options(**headers: str) -> Any:
    return make_head(
        method="OPTIONS", headers={name.replace("_", "-"): value for name, value in headers.items()}
    )


def test_a_listed_origins_preflight_is_answered_without_a_key() -> None:
    head = options(Origin=PAGE, Access_Control_Request_Headers="x-api-key, content-type")
    assert check_admission(head, Arrival(), POLICY, lambda *_: True) is None
    answer = preflight(head, POLICY)
    assert isinstance(answer, LocalAnswer)
    assert (answer.status, answer.body) == (204, b"")
    headers = dict(answer.headers)
    assert headers["access-control-allow-origin"] == PAGE
    assert headers["access-control-allow-headers"] == "x-api-key, content-type"
    assert "POST" in headers["access-control-allow-methods"]
    assert headers["vary"] == "Origin"
    assert "access-control-allow-credentials" not in headers


@table("head", [options(), options(Origin="https://evil.test"), options(Origin="null")])
def test_no_other_options_request_is_answered(head: Any) -> None:
    assert preflight(head, POLICY) is None
    assert page_headers(head, POLICY) == {}


def test_a_request_with_two_origins_is_of_no_listed_page() -> None:
    head = make_head(headers=[("Origin", PAGE), ("Origin", PAGE)])
    assert page_headers(head, POLICY) == {}


@table(
    ("origin", "fields", "expected"),
    [
        (PAGE, (), (ALLOW, VARY)),
        (PAGE, ((b"Access-Control-Allow-Origin", b"*"),), ((b"Access-Control-Allow-Origin", b"*"),)),
        ("", ((b"Access-Control-Allow-Origin", b"*"), (b"A", b"b")), ((b"A", b"b"),)),
    ],
)
def test_only_a_listed_page_may_read_a_response(origin: str, fields: Any, expected: Any) -> None:
    rule = make_rule(upstream="https://up.test", auth=BEARER)
    head = make_head(headers={"Origin": origin} if origin else {})
    plan = decide(make_ruleset(rule, credentials={"gw": {"env": "GW"}}), head, Arrival())
    assert isinstance(plan, Plan)
    assert fields_for_pages(fields, plan, head, POLICY) == expected
