"""From a request's head to the plan for it: destination, auth, target and models."""

from mitm_gateway.exchange.body_edits import applied_edits
from mitm_gateway.exchange.client_keys import key_to_move
from mitm_gateway.exchange.json_body import scan
from mitm_gateway.exchange.plan import Pass, Plan, decide
from mitm_gateway.rules.ruleset import NEEDS_BODY
from mitm_gateway.wire.addresses import Upstream
from mitm_gateway.wire.refusal import Refusal
from mitm_gateway.wire.request import Arrival
from support.builders import (
    BEARER,
    CLIENT,
    INTERCEPT,
    REVERSE,
    decided,
    make_head,
    make_rule,
    make_ruleset,
    plan_for,
)
from support.table import table


@table(
    ("unmatched", "arrival", "blocked"),
    [
        ("auto", REVERSE, True),
        ("auto", INTERCEPT, False),
        ("pass", REVERSE, False),
        ("block", INTERCEPT, True),
    ],
)
def test_unmatched_requests_pass_or_are_blocked(unmatched: str, arrival: Arrival, blocked: bool) -> None:
    outcome = decided(make_head(host="other.test"), arrival, unmatched)
    assert isinstance(outcome, Refusal if blocked else Pass)
    assert not isinstance(outcome, Refusal) or outcome.status == 404


@table(
    ("upstream", "target", "expected"),
    [
        ("https://h.test/a", "/v1/messages?beta=true", "/a/v1/messages?beta=true"),
        ("https://h.test/a/", "/v1/messages", "/a/v1/messages"),
        ("https://h.test/v1", "/v1/messages", "/v1/messages"),
        ("https://h.test/a/v1/", "/v1/messages?x=%2F&y", "/a/v1/messages?x=%2F&y"),
        ("https://h.test/v1", "/v1beta/x", "/v1/v1beta/x"),
        ("https://h.test", "/", "/"),
        ("https://h.test/a", "/", "/a/"),
        ("https://h.test", "/v1/x?", "/v1/x?"),
    ],
)
def test_the_base_path_is_joined_and_the_query_kept(upstream: str, target: str, expected: str) -> None:
    plan = plan_for(make_head(target), upstream=upstream, auth=BEARER)
    assert plan.target == expected
    assert plan.destination.host == "h.test"


def test_without_upstream_the_request_stays_on_its_host() -> None:
    plan = plan_for(auth=BEARER)
    assert plan.destination == Upstream("https", "api.anthropic.com", 443)


def test_keep_leaves_the_query_alone() -> None:
    assert plan_for(make_head("/v1/x?key=CK"), auth={"scheme": "keep"}).target == "/v1/x?key=CK"


def test_the_default_auth_is_none_for_another_host_and_keep_for_the_same() -> None:
    assert plan_for(upstream="https://h.test").auth.scheme == "none"
    assert plan_for(upstream="https://api.anthropic.com/x").auth.scheme == "keep"
    assert plan_for(headers={"set": {"x": "y"}}).auth.scheme == "keep"


@table(
    ("headers", "prefer", "expected"),
    [
        ({"x-api-key": "k"}, None, "k"),
        ({"Authorization": "Bearer k"}, None, "k"),
        ({"x-api-key": "dummy", "Authorization": "bearer k"}, None, "k"),
        ({"x-api-key": "-"}, None, None),
        ({}, None, None),
        ({"x-api-key": "a", "Authorization": "Bearer b"}, None, "a"),
        ({"x-api-key": "a", "Authorization": "Bearer b"}, "authorization", "b"),
        ({"x-goog-api-key": "k"}, None, "k"),
        ({"Api-Key": "k", "x-api-key": "dummy"}, None, "k"),
        ({"Ocp-Apim-Subscription-Key": "k"}, None, "k"),
        ({"api-key": "a", "Authorization": "Bearer b"}, None, "b"),
        ({"Sec-WebSocket-Protocol": "realtime, openai-insecure-api-key.k"}, None, "k"),
        ({"cookie": "k", "x-csrf-token": "k", "x-amz-security-token": "k"}, None, None),
        ({"proxy-authorization": "Bearer k"}, None, None),
        ({"x-api-key": "k", "Authorization": "Bearer "}, "authorization", "k"),
        ({"Authorization": "Basic"}, None, None),
        ({"Authorization": "AWS4-HMAC-SHA256 Credential=a/b, SignedHeaders=host, Signature=c"}, None, None),
        ({"x-api-key": "k\xe9y", "Authorization": "Bearer k"}, None, "k"),
    ],
)
def test_the_clients_own_key_is_found(
    headers: dict[str, str], prefer: str | None, expected: str | None
) -> None:
    assert key_to_move(make_head(headers=headers), prefer) == expected


@table(
    ("query", "expected"),
    [
        ("alt=sse&key=a%2Bb", "a+b"),
        ("API-KEY=k", "k"),
        ("key=-;access_token=k", "k"),
        ("pagetoken=k&sig=k", None),
    ],
)
def test_the_clients_own_key_is_found_in_the_query(query: str, expected: str | None) -> None:
    assert key_to_move(make_head(f"/v1beta/models?{query}")) == expected
    assert key_to_move(make_head(f"/v1beta/models?{query}", headers={"x-api-key": "first"})) == "first"


def test_an_anthropic_key_stays_at_anthropic() -> None:
    head = make_head(headers={"x-api-key": "sk-ant-api03-x"})
    outcome = decided(head, upstream="https://h.test", auth=CLIENT)
    assert isinstance(outcome, Refusal)
    assert outcome.status == 403
    assert isinstance(decided(head, upstream="https://eu.anthropic.com", auth=CLIENT), Plan)
    assert isinstance(decided(head, upstream="https://h.test", auth=CLIENT, allow_anthropic_key=True), Plan)
    look_alike = decided(head, upstream="https://notanthropic.com", auth=CLIENT)
    assert isinstance(look_alike, Refusal)


def test_plain_http_carries_a_credential_only_on_loopback() -> None:
    head = make_head(scheme="http", port=80)
    assert isinstance(decided(head, REVERSE, auth=BEARER), Refusal)
    assert isinstance(decided(head, REVERSE, auth=BEARER, allow_http=True), Plan)
    loopback = make_head(scheme="http", port=80, host="127.0.0.1")
    assert isinstance(decided(loopback, REVERSE, host="127.0.0.1", auth=BEARER), Plan)
    through_proxy = decided(loopback, Arrival(goes_to_proxy=True), host="127.0.0.1", auth=BEARER)
    assert isinstance(through_proxy, Refusal)
    assert "gateway_proxy" in through_proxy.reason


def test_plain_http_to_a_rules_host_goes_to_the_https_upstream() -> None:
    head = make_head(scheme="http", port=80)
    plan = plan_for(head, Arrival(mode="regular"), upstream="https://h.test", auth=BEARER)
    assert (plan.destination.scheme, plan.destination.port) == ("https", 443)


def test_a_plan_names_its_credential_and_holds_no_secret() -> None:
    plan = plan_for(make_head(headers={"x-api-key": "CLIENT-KEY"}), upstream="https://h.test", auth=BEARER)
    assert "'gw'" in repr(plan)
    assert "CLIENT-KEY" not in repr(plan)


def test_only_edits_that_change_the_body_are_reported() -> None:
    rule = make_rule(
        body={"remove": ["a", "tools[*].x"], "set": {"b": 2, "c": 3}},
        beta={"drop": ["x-*"]},
        models={"default": "m"},
    )
    body = scan(b'{"model":"n","b":2,"tools":[{"x":1}],"anthropic_beta":["x-1","y"]}')
    assert applied_edits(rule, body) == ("remove tools[*].x", "set c", "edit anthropic_beta")
    assert applied_edits(rule, scan(b'{"b":2,"c":3}')) == ()


def test_an_edit_that_needs_an_earlier_one_is_reported_as_applied() -> None:
    rule = make_rule(body={"remove": ["a"], "set": {"a": 1}})
    body = scan(b'{"a":{"b":1,"b":2}}')
    assert applied_edits(rule, body) == ("remove a", "set a")


def test_deciding_by_model_waits_for_the_body() -> None:
    rules = make_ruleset(make_rule(match={"model": "opus*"}, upstream="https://h.test"))
    assert decide(rules, make_head(), INTERCEPT) is NEEDS_BODY
    assert isinstance(decide(rules, make_head(), INTERCEPT, ("opus-1",)), Plan)
    assert isinstance(decide(rules, make_head(), INTERCEPT, ("haiku", "sonnet")), Pass)


def test_a_replay_does_not_move_the_clients_key() -> None:
    replay = Arrival(mode="regular", replay=True)
    head = make_head(headers={"x-api-key": "****1a2b"})
    assert isinstance(decided(head, replay, upstream="https://h.test", auth=CLIENT), Refusal)
    assert isinstance(decided(head, replay, auth={"scheme": "keep"}), Refusal)
    assert isinstance(decided(head, replay, upstream="https://h.test", auth=BEARER), Plan)


def test_the_demo_upstream_waits_for_its_server() -> None:
    rules = make_ruleset(make_rule(upstream="demo"))
    waiting = decide(rules, make_head(), INTERCEPT)
    assert isinstance(waiting, Refusal)
    assert (waiting.status, waiting.retry) == (503, True)
    plan = decide(rules, make_head(), INTERCEPT, demo=Upstream("http", "127.0.0.1", 9))
    assert isinstance(plan, Plan)
    assert plan.demo


@table(
    ("request_line", "expected"),
    [
        ("GET /v1/models/claude-opus-4?x=1", "/v1/models/up?x=1"),
        ("POST /model/a%3Ab/invoke", "/model/a%3Ab/invoke"),
        ("POST /v1/%72ealtime/calls?model=claude-opus-4", "/v1/%72ealtime/calls?model=up"),
        ("POST /v1/messages?model=claude-opus-4", "/v1/messages?model=claude-opus-4"),
    ],
)
def test_a_model_in_path_or_query_is_mapped(request_line: str, expected: str) -> None:
    method, _, target = request_line.partition(" ")
    head = make_head(target, method=method)
    assert plan_for(head, models={"map": {"claude-*": "up"}}).target == expected


def test_a_query_with_two_models_is_refused() -> None:
    refusal = decided(make_head("/v1/realtime?model=a&m%6Fdel=b", method="GET"))
    assert isinstance(refusal, Refusal)
    assert (refusal.status, refusal.reason) == (400, "the query names more than one model")
