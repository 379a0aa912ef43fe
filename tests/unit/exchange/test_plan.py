"""From a request's head to what will be done with it, and the head that leaves."""

from __future__ import annotations

from typing import Any

import pytest

from mitm_gateway.exchange.body_edits import applied_edits, body_bytes
from mitm_gateway.exchange.headers import Secrets, outgoing
from mitm_gateway.exchange.json_body import scan
from mitm_gateway.exchange.plan import Pass, Plan, decide, key_to_move
from mitm_gateway.rules.ruleset import NEEDS_BODY
from mitm_gateway.rules.schema import Auth
from mitm_gateway.text.redact import KEY_ENDINGS, KEY_NAMES, MASK, Secret, masked_header
from mitm_gateway.wire.addresses import Upstream
from mitm_gateway.wire.refusal import Refusal
from mitm_gateway.wire.request import Arrival
from support.core import make_head, make_rule, make_ruleset

INTERCEPT = Arrival(mode="regular", tls=True, sni="api.anthropic.com", inside_connect=True)
REVERSE = Arrival(mode="reverse")
BEARER = {"scheme": "bearer", "credential": "gw"}
CREDENTIALS = {"gw": {"env": "GW"}, "second": {"env": "SECOND"}}


def decided(head: Any = None, arrival: Arrival = INTERCEPT, unmatched: str = "auto", **keys: Any) -> Any:
    rules = make_ruleset(make_rule(**keys), unmatched=unmatched, credentials=CREDENTIALS)
    return decide(rules, head or make_head(), arrival)


def plan_for(head: Any = None, arrival: Arrival = INTERCEPT, **keys: Any) -> Plan:
    plan = decided(head, arrival, **keys)
    assert isinstance(plan, Plan), plan
    return plan


def sent(head: Any, secret: str | None = "GW-SECRET", **keys: Any) -> list[tuple[str, str]]:
    plan = plan_for(head, **keys)
    named = {name: Secret(f"{name}-SECRET") for name in plan.rule.credential_names}
    fields = outgoing(plan, head, Secrets(Secret(secret) if secret else None, named))
    return [(name.decode(), value.decode()) for name, value in fields]


@pytest.mark.parametrize(
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


@pytest.mark.parametrize(
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


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("?key=CK&alt=sse", "?alt=sse"),
        ("?alt=sse&KEY=CK", "?alt=sse"),
        ("?%61pi_key=CK", ""),
        ("?a=%20&access_token=CK&b=+", "?a=%20&b=+"),
        ("?monkey=1", "?monkey=1"),
        ("?a&&b", "?a&&b"),
    ],
)
def test_keys_in_the_query_are_removed_and_the_rest_stays(query: str, expected: str) -> None:
    plan = plan_for(make_head("/v1/x" + query), upstream="https://h.test", auth=BEARER)
    assert plan.target == "/v1/x" + expected


def test_keep_leaves_the_query_alone() -> None:
    assert plan_for(make_head("/v1/x?key=CK"), auth={"scheme": "keep"}).target == "/v1/x?key=CK"


def test_the_default_auth_is_none_for_another_host_and_keep_for_the_same() -> None:
    assert plan_for(upstream="https://h.test").auth.scheme == "none"
    assert plan_for(upstream="https://api.anthropic.com/x").auth.scheme == "keep"
    assert plan_for(headers={"set": {"x": "y"}}).auth.scheme == "keep"


CLIENT_KEYS = [
    ("x-api-key", "CK1"),
    ("X-API-KEY", "CK2"),
    ("authorization", "Bearer CK3"),
    ("AUTHORIZATION", "Bearer CK4"),
    ("Api_Key", "CK5"),
    ("X-Goog-Api-Key", "CK6"),
    ("anthropic-api-key", "CK7"),
    ("Ocp-Apim-Subscription-Key", "CK8"),
    ("Cookie", "CK9"),
    ("Proxy-Authorization", "CK10"),
    ("X_API_KEY", "CK11"),
    ("x-litellm-api-key", "Bearer CK12"),
    ("X-Amz-Security-Token", "CK13"),
    ("x-functions-key", "CK14"),
]


@pytest.mark.parametrize(
    ("auth", "field"),
    [
        (BEARER, ("Authorization", "Bearer GW-SECRET")),
        ({"scheme": "x-api-key", "credential": "gw"}, ("x-api-key", "GW-SECRET")),
        ({"scheme": "api-key", "credential": "gw"}, ("api-key", "GW-SECRET")),
        ({"scheme": "x-goog-api-key", "credential": "gw"}, ("x-goog-api-key", "GW-SECRET")),
        ({"scheme": "basic", "credential": "gw"}, ("Authorization", "Basic R1ctU0VDUkVU")),
        ({"scheme": "token", "credential": "gw"}, ("Authorization", "token GW-SECRET")),
        (
            {"scheme": "header", "name": "X-Key", "prefix": "Key ", "credential": "gw"},
            ("X-Key", "Key GW-SECRET"),
        ),
    ],
)
def test_every_scheme_strips_all_client_keys_and_sends_one(auth: Any, field: tuple[str, str]) -> None:
    head = make_head(headers=[("X-A", "1"), *CLIENT_KEYS, ("X-B", "2")])
    assert sent(head, upstream="https://h.test", auth=auth) == [
        ("Host", "h.test"),
        ("X-A", "1"),
        ("X-B", "2"),
        field,
    ]


def test_scheme_none_strips_and_sends_no_key() -> None:
    head = make_head(headers=CLIENT_KEYS)
    assert sent(head, None, upstream="https://h.test", auth={"scheme": "none"}) == [("Host", "h.test")]


def test_keep_leaves_the_clients_keys() -> None:
    head = make_head(headers=CLIENT_KEYS)
    assert sent(head, None, auth={"scheme": "keep"}) == [("Host", "api.anthropic.com"), *CLIENT_KEYS]


def test_websocket_keys_are_removed_from_the_protocol_list() -> None:
    head = make_head(headers={"Sec-WebSocket-Protocol": "realtime, openai-insecure-api-key.CK, beta"})
    assert ("Sec-WebSocket-Protocol", "realtime, beta") in sent(head, upstream="https://h.test", auth=BEARER)


def test_headers_are_removed_set_and_added_in_this_order() -> None:
    head = make_head(headers=[("X-Stainless-Lang", "js"), ("X-A", "1"), ("x-a", "2"), ("Accept", "*/*")])
    headers = {"remove": ["x-stainless-*"], "set": {"X-A": "new"}, "add": {"Accept": "text/html"}}
    assert sent(head, None, headers=headers) == [
        ("Host", "api.anthropic.com"),
        ("X-A", "new"),
        ("Accept", "*/*"),
        ("Accept", "text/html"),
    ]


def test_removing_everything_leaves_the_framing() -> None:
    head = make_head(headers={"Content-Length": "3", "X-A": "1"})
    assert sent(head, None, headers={"remove": ["*"]}) == [
        ("Host", "api.anthropic.com"),
        ("Content-Length", "3"),
    ]


def test_a_second_secret_goes_into_a_header() -> None:
    head = make_head(headers={"ocp-apim-subscription-key": "CK"})
    headers = {"set": {"ocp-apim-subscription-key": "${credential:second}"}}
    fields = sent(head, upstream="https://h.test", auth=BEARER, headers=headers)
    assert fields[1:] == [
        ("ocp-apim-subscription-key", "second-SECRET"),
        ("Authorization", "Bearer GW-SECRET"),
    ]


@pytest.mark.parametrize(
    ("beta", "before", "after"),
    [
        ({"keep": ["a-*"]}, "a-1,b-1, a-2", "a-1,a-2"),
        ({"drop": ["b-*"]}, "a-1,b-1", "a-1"),
        ({"keep": ["a-*"], "rename": {"a-1": "c"}, "add": ["d", "a-2"]}, "a-1,b,a-2", "c,a-2,d"),
        ({"rename": {"b": "a"}}, "a,b", "a"),
        ({"keep": ["x"]}, "a,b", None),
        ({"drop": ["x"]}, "a,  b", "a,  b"),
        ({"add": ["x"]}, None, "x"),
        ({"keep": []}, "", None),
        ({"drop": ["x"]}, "a,,b, ", "a,b"),
    ],
)
def test_betas_are_edited_in_the_header(beta: Any, before: str | None, after: str | None) -> None:
    head = make_head(headers={} if before is None else {"anthropic-beta": before})
    assert dict(sent(head, None, beta=beta)).get("anthropic-beta") == after


def test_connection_does_not_name_the_auth_header() -> None:
    head = make_head(headers={"Connection": "keep-alive, Authorization"})
    assert ("Connection", "keep-alive") in sent(head, upstream="https://h.test", auth=BEARER)


def test_http2_names_the_host_in_the_authority_and_in_lower_case() -> None:
    head = make_head(authority="api.anthropic.com", headers={"host": "api.anthropic.com", "x-a": "1"})
    headers = {"set": {"Editor-Version": "1"}}
    assert sent(head, upstream="https://h.test", auth=BEARER, headers=headers) == [
        ("x-a", "1"),
        ("editor-version", "1"),
        ("authorization", "Bearer GW-SECRET"),
    ]


def test_restored_answers_are_asked_for_uncompressed() -> None:
    head = make_head(headers={"Accept-Encoding": "gzip, br"})
    assert dict(sent(head, None, models={"default": "m"}))["Accept-Encoding"] == "identity"
    kept = dict(sent(head, None, models={"default": "m", "restore": False}))
    assert kept["Accept-Encoding"] == "gzip, br"


@pytest.mark.parametrize(
    ("headers", "auth", "expected"),
    [
        ({"x-api-key": "k"}, {}, "k"),
        ({"Authorization": "Bearer k"}, {}, "k"),
        ({"x-api-key": "dummy", "Authorization": "bearer k"}, {}, "k"),
        ({"x-api-key": "-"}, {}, None),
        ({}, {}, None),
        ({"x-api-key": "a", "Authorization": "Bearer b"}, {}, "a"),
        ({"x-api-key": "a", "Authorization": "Bearer b"}, {"prefer": "authorization"}, "b"),
    ],
)
def test_the_clients_own_key_is_found(headers: dict[str, str], auth: Any, expected: str | None) -> None:
    wanted = Auth.model_validate({"scheme": "bearer", "credential": "client", **auth})
    assert key_to_move(make_head(headers=headers), wanted) == expected


CLIENT = {"scheme": "bearer", "credential": "client"}


def test_a_missing_client_key_is_401() -> None:
    outcome = decided(upstream="https://h.test", auth=CLIENT)
    assert isinstance(outcome, Refusal)
    assert outcome.status == 401


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


def test_plain_http_to_a_rules_host_goes_to_the_https_upstream() -> None:
    head = make_head(scheme="http", port=80)
    plan = plan_for(head, Arrival(mode="regular"), upstream="https://h.test", auth=BEARER)
    assert (plan.destination.scheme, plan.destination.port) == ("https", 443)


def test_a_plan_names_its_credential_and_holds_no_secret() -> None:
    plan = plan_for(make_head(headers={"x-api-key": "CLIENT-KEY"}), upstream="https://h.test", auth=BEARER)
    assert "'gw'" in repr(plan)
    assert "CLIENT-KEY" not in repr(plan)


def test_a_model_in_the_path_is_replaced() -> None:
    head = make_head("/model/claude%3A1/invoke?x")
    plan = plan_for(head, models={"map": {"claude:1": "us.c/1:0"}})
    assert plan.target == "/model/us.c%2F1:0/invoke?x"
    assert (plan.model, plan.model_sent) == ("claude:1", "us.c/1:0")


def test_a_model_in_the_path_that_stays_keeps_its_bytes() -> None:
    assert (
        plan_for(make_head("/model/a%3Ab/invoke"), models={"map": {"x": "y"}}).target == "/model/a%3Ab/invoke"
    )


@pytest.mark.parametrize(
    ("asked", "expected"),
    [("exact", "1"), ("claude-opus-4", "2"), ("claude-opus-9-x", "2"), ("claude-x", "3"), ("other", "d")],
)
def test_exact_names_win_then_file_order_then_the_default(asked: str, expected: str) -> None:
    models = {"map": {"claude-opus-*": "2", "claude-*": "3", "exact": "1", "e*": "9"}, "default": "d"}
    rule = make_rule(models=models)
    body = scan(b'{"model":"%s"}' % asked.encode())
    assert body_bytes(rule, body) == (b'{"model":"%s"}' % expected.encode(), expected)


def test_a_body_without_edits_is_the_same_object() -> None:
    raw = b'{"model": "m"}'
    assert body_bytes(make_rule(models={"map": {"x": "y"}}), scan(raw))[0] is raw


def test_only_edits_that_change_the_body_are_reported() -> None:
    rule = make_rule(
        body={"remove": ["a", "tools[*].x"], "set": {"b": 2, "c": 3}},
        beta={"drop": ["x-*"]},
        models={"default": "m"},
    )
    body = scan(b'{"model":"n","b":2,"tools":[{"x":1}],"anthropic_beta":["x-1","y"]}')
    assert applied_edits(rule, body) == ("remove tools[*].x", "set c", "edit anthropic_beta")
    assert applied_edits(rule, scan(b'{"b":2,"c":3}')) == ()


def test_an_edit_that_only_works_after_another_has_been_made() -> None:
    rule = make_rule(body={"remove": ["a"], "set": {"a": 1}})
    body = scan(b'{"a":{"b":1,"b":2}}')
    assert applied_edits(rule, body) == ("remove a", "set a")


def test_deciding_by_model_waits_for_the_body() -> None:
    rules = make_ruleset(make_rule(match={"model": "opus*"}, upstream="https://h.test"))
    assert decide(rules, make_head(), INTERCEPT) is NEEDS_BODY
    assert isinstance(decide(rules, make_head(), INTERCEPT, ("opus-1",)), Plan)
    assert isinstance(decide(rules, make_head(), INTERCEPT, ("haiku",)), Pass)


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


@pytest.mark.parametrize(
    ("request_line", "expected"),
    [
        ("POST /model/claude-opus-4/converse", "/model/up/converse"),
        ("POST /model/claude-opus-4/count-tokens", "/model/up/count-tokens"),
        ("GET /v1/models/claude-opus-4?x=1", "/v1/models/up?x=1"),
        ("POST /v1beta/tunedModels/claude-opus-4:generateContent", "/v1beta/tunedModels/up:generateContent"),
        ("POST /v1/realtime/calls?a=%20&model=claude-opus-4&b", "/v1/realtime/calls?a=%20&model=up&b"),
        ("POST /v1/%72ealtime/calls?model=claude-opus-4", "/v1/%72ealtime/calls?model=up"),
        ("POST /v1/messages?model=claude-opus-4", "/v1/messages?model=claude-opus-4"),
        ("POST /v1/deployments/claude-opus-4/run", "/v1/deployments/claude-opus-4/run"),
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


def test_the_models_of_a_batch_lead_to_one_rule_or_to_a_refusal() -> None:
    rules = make_ruleset(
        make_rule("opus", match={"model": "opus-*"}), make_rule("haiku", match={"model": "haiku-*"})
    )
    plan = decide(rules, make_head("/v1/messages/batches"), INTERCEPT, ("opus-1", "opus-2"))
    assert isinstance(plan, Plan)
    assert plan.rule.name == "opus"
    for models in (("opus-1", "haiku-1"), ("opus-1", "other"), ("other", "opus-1")):
        refusal = decide(rules, make_head("/v1/messages/batches"), INTERCEPT, models)
        assert isinstance(refusal, Refusal)
        assert refusal.status == 400
    assert isinstance(decide(rules, make_head("/v1/messages/batches"), INTERCEPT, ("a", "b")), Pass)


@pytest.mark.parametrize(
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
    assert dict(sent(head, None, auth=auth, **keys))["anthropic-beta"] == after


def test_no_empty_header_stays_of_a_tokens_beta() -> None:
    head = make_head(headers={"anthropic-beta": "oauth-2025-04-20"})
    assert "anthropic-beta" not in dict(sent(head, upstream="https://h.test", auth=BEARER))
    added = sent(head, upstream="https://h.test", auth=BEARER, beta={"add": ["oauth-2025-04-20"]})
    assert dict(added)["anthropic-beta"] == "oauth-2025-04-20"


@pytest.mark.parametrize(
    "name", sorted({*KEY_NAMES, *KEY_ENDINGS, *(f"x-{ending}" for ending in KEY_ENDINGS)})
)
@pytest.mark.parametrize("scheme", ["bearer", "none"])
def test_every_name_that_the_views_mask_is_stripped(name: str, scheme: str) -> None:
    assert MASK in masked_header(name, "hunter2")
    auth = BEARER if scheme == "bearer" else {"scheme": "none"}
    head = make_head(f"/v1/x?{name}=hunter2&a=1", headers={name: "hunter2", name.upper(): "hunter2"})
    assert plan_for(head, upstream="https://h.test", auth=auth).target == "/v1/x?a=1"
    fields = sent(head, "GW" if scheme == "bearer" else None, upstream="https://h.test", auth=auth)
    assert "hunter2" not in str(fields)
    kept = sent(
        head, None, upstream="https://h.test", auth={"scheme": "none"}, headers={"set": {name: "own"}}
    )
    assert (name, "own") in kept
