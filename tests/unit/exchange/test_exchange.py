"""The order of a request, and every decision of an exchange, without mitmproxy and in milliseconds."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from mitm_gateway.credentials.value import Value
from mitm_gateway.exchange import exchange as module
from mitm_gateway.exchange import guard
from mitm_gateway.exchange.comment import comment_of
from mitm_gateway.exchange.config import Config
from mitm_gateway.exchange.exchange import Exchange
from mitm_gateway.exchange.guard import Policy
from mitm_gateway.exchange.local_answers import LocalAnswer
from mitm_gateway.exchange.plan import Pass
from mitm_gateway.exchange.record import Ending
from mitm_gateway.exchange.report import Report
from mitm_gateway.exchange.response_plan import EMPTY, ResponseHead
from mitm_gateway.exchange.steps import Forward, NeedBody, NeedCredentials, OutgoingHead, Step
from mitm_gateway.rules.schema import Rule
from mitm_gateway.text.redact import Secret
from mitm_gateway.wire.addresses import Upstream
from mitm_gateway.wire.refusal import Refusal
from mitm_gateway.wire.request import Arrival, text
from support.constants import API, CK, GW
from support.core import make_head, make_rule, make_ruleset

BEARER = {"scheme": "bearer", "credential": "gw"}
PLAIN = make_rule("plain", upstream="https://gw.test/base", auth=BEARER)
MAPPED = make_rule("mapped", upstream="https://gw.test", auth=BEARER, models={"map": {"claude-x": "gw-x"}})
BY_MODEL = make_rule("by-model", upstream="https://gw.test", auth=BEARER, match={"model": "claude-*"})
VALUES = {"gw": Value(Secret(GW), read_at=0.0)}
KEY = {"x-api-key": CK}
BODY = b'{"model":"claude-x"}'
EVENTS = ((b"Content-Type", b"text/event-stream"), (b"Content-Length", b"9"))


def begun(*rules: Rule, arrival: Arrival | None = None, unmatched: str = "auto", **config: Any) -> Exchange:
    ruleset = make_ruleset(*rules, unmatched=unmatched, credentials={"gw": {"env": "GW"}})
    clock = iter(range(1000))
    return Exchange(
        Config(ruleset, **config), arrival or Arrival(tls=True, sni=API), lambda: next(clock), lambda: 0.0
    )


def released(exchange: Exchange, headers: Mapping[str, str] = KEY, body: bytes = BODY) -> Exchange:
    """Run a request until it has left."""
    step = exchange.on_request_head(make_head(headers=dict(headers)))
    while isinstance(step, NeedCredentials | NeedBody):
        step = (
            exchange.on_credentials(VALUES)
            if isinstance(step, NeedCredentials)
            else exchange.on_request_body(body)
        )
    assert isinstance(step, Forward)
    exchange.release()
    return exchange


def sent(exchange: Exchange, step: Step) -> dict[str, str]:
    """Return the fields that are written to the upstream after a step."""
    assert isinstance(step, Forward | NeedBody)
    assert isinstance(step.head, OutgoingHead)
    _, fields = exchange.with_secrets(step.head.target, step.head.fields)
    return {text(name).lower(): text(value) for name, value in fields}


def test_a_request_is_admitted_matched_planned_and_given_its_credential_in_this_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    order: list[str] = []

    def noting(name: str, original: Any) -> Any:
        def noted(*args: Any, **named: Any) -> Any:
            order.append(name)
            return original(*args, **named)

        return noted

    monkeypatch.setattr(guard, "check_admission", noting("admit", guard.check_admission))
    monkeypatch.setattr(guard, "check_client_key", noting("admit", guard.check_client_key))
    for name in ("decide", "read_body", "edited_json", "outgoing"):
        monkeypatch.setattr(module, name, noting(name, getattr(module, name)))
    released(begun(BY_MODEL, policy=guard.Policy(client_keys=(CK.encode(),))))
    assert order == ["admit", "admit", "decide", "read_body", "decide", "edited_json", "outgoing"]


def test_a_rule_that_reads_no_body_decides_on_the_head_alone() -> None:
    exchange = begun(PLAIN)
    assert exchange.on_request_head(make_head(headers=KEY)) == NeedCredentials(("gw",))
    step = exchange.on_credentials(VALUES)
    assert isinstance(step, Forward)
    assert step.head is not None
    assert (step.head.destination, step.head.target) == (
        Upstream("https", "gw.test", 443, "/base"),
        "/base/v1/messages",
    )
    assert sent(exchange, step) == {"host": "gw.test", "authorization": f"Bearer {GW}"}
    assert exchange.on_request_body(b"\xff") == Forward()


def test_a_rule_that_edits_bodies_has_its_head_before_the_body_is_complete() -> None:
    exchange = begun(MAPPED)
    exchange.on_request_head(make_head(headers=KEY))
    step = exchange.on_credentials(VALUES)
    assert isinstance(step, NeedBody)
    assert sent(exchange, step)["authorization"] == f"Bearer {GW}"
    assert exchange.on_request_body(BODY) == Forward(body=b'{"model":"gw-x"}')
    assert (exchange.record.model, exchange.record.model_sent) == ("claude-x", "gw-x")


def test_a_model_that_decides_is_awaited_before_any_secret_is_requested() -> None:
    exchange = begun(BY_MODEL)
    step = exchange.on_request_head(make_head(headers=KEY))
    assert isinstance(step, NeedBody)
    assert step.head.destination is None
    assert exchange.on_request_body(BODY) == NeedCredentials(("gw",))
    step = exchange.on_credentials(VALUES)
    assert isinstance(step, Forward)
    assert step.body is None
    assert sent(exchange, step)["authorization"] == f"Bearer {GW}"


def test_a_body_that_no_rule_takes_passes() -> None:
    exchange = begun(BY_MODEL)
    head = make_head(headers=KEY)
    exchange.on_request_head(head)
    assert exchange.on_request_body(b'{"model":"other"}') == Pass(head.target, head.fields)


def test_a_host_without_rules_passes_with_its_own_fields() -> None:
    exchange = begun(PLAIN, arrival=Arrival(tls=True, sni="other.test"))
    head = make_head(headers=KEY, host="other.test")
    assert exchange.on_request_head(head) == Pass(head.target, head.fields)
    assert exchange.allows(Upstream("https", "anywhere.test", 1))


def test_a_key_for_a_proxy_does_not_pass() -> None:
    head = make_head(headers={"Proxy-Authorization": "Basic dTp3", "x-a": "1"}, host="other.test")
    step = begun(PLAIN, arrival=Arrival()).on_request_head(head)
    assert isinstance(step, Pass)
    assert step.fields == ((b"Host", b"other.test"), (b"x-a", b"1"))


def test_a_reverse_listener_names_its_target_where_no_rule_takes_the_request() -> None:
    rule = make_rule("r", match={"path": "/v1/**"})
    head = make_head("/other", {"Host": "localhost"})
    exchange = begun(rule, arrival=Arrival(mode="reverse"), unmatched="pass")
    assert exchange.on_request_head(head) == Pass(head.target, head.fields, API)


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (make_head(method="TRACE"), 403),
        (make_head("/v1/../x"), 400),
        (make_head(headers={"Host": "evil.test"}), 421),
        (make_head(headers={"Origin": "https://evil.test"}), 403),
        (make_head(headers={"Content-Length": str(1 << 40)}), 413),
    ],
)
def test_a_request_that_is_not_admitted_is_refused_before_its_rule_is_found(head: Any, status: int) -> None:
    exchange = begun(PLAIN)
    step = exchange.on_request_head(head)
    assert isinstance(step, Refusal)
    assert (step.status, step.rule) == (status, None)
    assert exchange.record.refusal == step.reason
    assert exchange.is_answered
    assert exchange.plan is None


def test_a_clients_key_for_the_gateway_is_required_and_never_leaves() -> None:
    policy = Policy(client_keys=(b"client-secret",))
    assert isinstance(begun(PLAIN, policy=policy).on_request_head(make_head(headers=KEY)), Refusal)
    keep = make_rule("keep", auth={"scheme": "keep"})
    exchange = begun(keep, policy=policy)
    step = exchange.on_request_head(make_head(headers={"x-api-key": "client-secret"}))
    assert "x-api-key" not in sent(exchange, step)


def test_a_probe_is_answered_without_a_key() -> None:
    rule = make_rule("r", respond={"head": True})
    exchange = begun(rule, policy=Policy(client_keys=(b"client-secret",)))
    assert isinstance(exchange.on_request_head(make_head(method="HEAD")), LocalAnswer)
    assert exchange.is_answered


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"[", {}, 400),
        (b"\xff", {}, 400),
        (b'{"model":"a","model":"b"}', {}, 400),
        (BODY, {"Content-Encoding": "gzip"}, 400),
        (BODY, {"Content-Encoding": "unknown"}, 400),
        (b'{"a":"' + b"a" * 100 + b'"}', {}, 413),
    ],
)
@pytest.mark.parametrize("rule", [MAPPED, BY_MODEL], ids=["edits", "decides"])
def test_a_body_that_cannot_be_read_is_refused(
    rule: Rule, body: bytes, headers: dict[str, str], status: int
) -> None:
    exchange = begun(rule, body_limit=64)
    if exchange.on_request_head(make_head(headers=headers)) == NeedCredentials(("gw",)):
        exchange.on_credentials(VALUES)
    step = exchange.on_request_body(body)
    assert isinstance(step, Refusal)
    assert step.status == status


def test_a_refusal_names_its_rule() -> None:
    exchange = begun(PLAIN)
    exchange.on_request_head(make_head(headers=KEY))
    assert exchange.refuse(Refusal(502, "no credential")).rule == "plain"
    assert (exchange.record.rule, exchange.record.refusal) == ("plain", "no credential")


@pytest.mark.parametrize(
    ("destination", "expected"),
    [
        (Upstream("https", "gw.test", 443), True),
        (Upstream("http", "gw.test", 443), False),
        (Upstream("https", "gw.test", 444), False),
        (Upstream("https", "evil.test", 443), False),
    ],
)
def test_a_rule_allows_its_own_upstream_only(destination: Upstream, expected: bool) -> None:
    assert released(begun(PLAIN)).allows(destination) is expected


def test_every_key_is_known_for_masking() -> None:
    assert set(released(begun(PLAIN)).secrets) == {GW, CK}


@pytest.mark.parametrize(
    ("target", "headers"),
    [
        ("/v1/messages", {"x-goog-api-key": CK}),
        ("/v1/messages", {"api-key": f"Bearer {CK}"}),
        ("/v1/messages", {"Sec-WebSocket-Protocol": f"realtime, openai-insecure-api-key.{CK}"}),
        (f"/v1/messages?alt=sse&key={CK}", {}),
        (f"/v1/messages?alt=sse;api%5Fkey=%73{CK[1:]}", {}),
    ],
)
def test_a_key_that_is_kept_is_masked_where_the_upstream_echoes_it(
    target: str, headers: dict[str, str]
) -> None:
    exchange = begun(make_rule("kept", auth={"scheme": "keep"}))
    exchange.on_request_head(make_head(target, headers))
    exchange.on_credentials({})
    plan = exchange.on_response_head(ResponseHead(200, ((b"x-echo", CK.encode()),)))
    assert plan is not None
    assert plan.fields == ((b"x-echo", b"****cdef"),)


@pytest.mark.parametrize("rule", [PLAIN, MAPPED, BY_MODEL], ids=lambda rule: rule.name)
def test_no_step_contains_a_key(rule: Rule) -> None:
    exchange, steps = begun(rule), []
    step = exchange.on_request_head(make_head("/v1/messages?key=" + CK, {**KEY, "x-note": CK}))
    while not isinstance(step, Forward):
        steps.append(step)
        step = (
            exchange.on_credentials(VALUES)
            if isinstance(step, NeedCredentials)
            else exchange.on_request_body(BODY)
        )
    assert GW not in repr([*steps, step])
    assert CK not in repr([*steps, step])


def test_what_another_addon_edits_meanwhile_is_written_as_edited() -> None:
    exchange = begun(PLAIN)
    exchange.on_request_head(make_head(headers=KEY))
    step = exchange.on_credentials(VALUES)
    assert isinstance(step, Forward)
    assert step.head is not None
    fields = (*step.head.fields[:-1], (b"Authorization", b"Bearer other"), (b"x-new", b"1"))
    assert exchange.with_secrets("/elsewhere", fields) == ("/elsewhere", fields)


def test_a_revealed_head_is_the_one_that_is_written() -> None:
    exchange = begun(PLAIN, reveal=True)
    exchange.on_request_head(make_head(headers=KEY))
    step = exchange.on_credentials(VALUES)
    assert isinstance(step, Forward)
    assert step.head is not None
    assert (b"Authorization", f"Bearer {GW}".encode()) in step.head.fields


def test_a_response_streams_through_a_tee_that_restores_the_model() -> None:
    exchange = released(begun(MAPPED))
    plan = exchange.on_response_head(ResponseHead(200, EVENTS))
    assert plan is not None
    assert (plan.fields, plan.is_reframed) == (EVENTS[:1], True)
    assert plan.tee is not None
    assert plan.tee.feed(b'data: {"model":"gw-x"}\n\n') == b'data: {"model":"claude-x"}\n\n'


def test_a_response_without_a_map_keeps_its_length() -> None:
    plan = released(begun(PLAIN)).on_response_head(ResponseHead(200, EVENTS))
    assert plan is not None
    assert (plan.fields, plan.is_reframed) == (EVENTS, False)


def test_a_rejected_credential_is_reported() -> None:
    plan = released(begun(PLAIN)).on_response_head(ResponseHead(401, ()))
    assert plan is not None
    assert plan.rejected == ("gw", Secret(GW))


def test_a_token_for_another_api_is_noted() -> None:
    exchange = begun(PLAIN)
    exchange.on_request_head(make_head())
    exchange.on_credentials({"gw": Value(Secret(GW), api=Upstream.parse("https://api.business.test"))})
    assert exchange.record.notes == (
        "the token is for api.business.test: set upstream to https://api.business.test",
    )


def test_a_response_cannot_lead_the_client_past_the_gateway() -> None:
    fields = ((b"Alt-Svc", b'h3=":443"; ma=86400'), (b"x-a", b"1"))
    plan = released(begun(PLAIN)).on_response_head(ResponseHead(200, fields))
    assert plan is not None
    assert plan.fields == ((b"x-a", b"1"),)


def test_a_switch_of_protocols_does_not_stream_through_a_tee() -> None:
    plan = released(begun(PLAIN)).on_response_head(ResponseHead(101, ()))
    assert plan is not None
    assert plan.tee is None


def test_a_page_may_read_an_answer_only_where_its_origin_is_listed() -> None:
    fields = ((b"Access-Control-Allow-Origin", b"*"), (b"x-a", b"1"))
    for origin, kept in [("https://ok.test", fields), ("", fields[1:])]:
        headers = {"Origin": origin} if origin else {}
        policy = Policy(origins=frozenset({"https://ok.test"}))
        plan = released(begun(PLAIN, policy=policy), headers).on_response_head(ResponseHead(200, fields))
        assert plan is not None
        assert plan.fields == kept


def test_a_local_answer_has_no_way_back() -> None:
    exchange = begun(PLAIN)
    exchange.on_request_head(make_head(method="TRACE"))
    assert exchange.on_response_head(ResponseHead(403, ())) is None


def test_the_record_tells_the_request_from_head_to_end() -> None:
    exchange = released(begun(MAPPED))
    plan = exchange.on_response_head(ResponseHead(200, EVENTS))
    assert plan is not None
    assert plan.tee is not None
    plan.tee.feed(b'data: {"type":"message_start","message":{"model":"gw-x","usage":{"input_tokens":3}}}\n\n')
    exchange.on_end(ResponseHead(200, EVENTS), "server closed connection", "broke_off")
    record = exchange.complete()
    assert (record.rule, record.model, record.model_sent) == ("mapped", "claude-x", "gw-x")
    assert (record.status, record.error, Report.of(record).outcome) == (
        200,
        "server closed connection",
        "upstream_broke_off",
    )
    assert record.usage is not None
    assert record.usage.input_tokens == 3
    assert record.credential_age_s == 1.0


ECHOED = "gateway_key_fedcba9876543210"
EVENT = 'data: {{"type":"message_start","message":{{"model":"{0}"}}}}\n\n'


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, '{{"model":"{0}","service_tier":"{0}","stop_reason":"{0}"}}'),
        (200, EVENT),
        (200, EVENT + 'data: {{"type":"error","error":{{"type":"{0}"}}}}\n\n'),
        (400, '{{"error":{{"message":"{0}: Extra inputs are not permitted"}}}}'),
        (400, '{{"error":{{"message":"unknown parameter: {0}"}}}}'),
        (400, '{{"error":{{"message":"invalid beta header: {0}-2025-01-01"}}}}'),
    ],
)
@pytest.mark.parametrize("is_escaped", [False, True])
@pytest.mark.parametrize("encode", [bytes, gzip.compress], ids=["plain", "gzip"])
def test_a_record_contains_no_key_that_the_response_names(
    status: int, body: str, is_escaped: bool, encode: Callable[[bytes], bytes]
) -> None:
    exchange = begun(PLAIN)
    exchange.on_request_head(make_head(f"/v1/{ECHOED}", {"x-session-id": ECHOED, "x-api-key": CK}))
    exchange.on_credentials({"gw": Value(Secret(ECHOED), read_at=0.0)})
    coding = ((b"Content-Encoding", b"gzip"),) if encode is gzip.compress else ()
    head = ResponseHead(status, ((b"Content-Type", b"application/json"), *coding))
    plan = exchange.on_response_head(head)
    assert plan is not None
    assert plan.tee is not None
    named = "".join(f"\\u{ord(each):04x}" for each in ECHOED) if is_escaped else ECHOED
    plan.tee.feed(encode(body.format(named).encode()))
    exchange.on_end(head, f"error with {ECHOED}", "broke_off")
    reports = [Report.of(each) for each in (exchange.progress("streaming", status), exchange.complete())]
    assert ECHOED not in repr([(each, each.log_entry(), comment_of(each)) for each in reports])


@pytest.mark.parametrize("status", [400, 404, 405, 426, 501])
def test_an_upstream_without_websockets_is_named_as_the_cause(status: int) -> None:
    exchange = begun(PLAIN)
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    exchange.on_request_head(make_head("/v1/responses", upgrade, method="GET"))
    exchange.on_credentials(VALUES)
    exchange.release()
    head = ResponseHead(status, ((b"content-type", b"application/json"),))
    exchange.on_response_head(head)
    exchange.on_end(head)
    assert exchange.complete().hint == (
        "the upstream has no WebSocket here; add `models: {}` to the rule, and the client uses HTTP at once"
    )


@pytest.mark.parametrize(
    ("method", "target", "ending", "is_named"),
    [
        ("POST", "/v1/messages", "complete", True),
        ("POST", "/v1/messages", "client_left", False),
        ("HEAD", "/v1/messages", "complete", False),
        ("POST", "/v1/files", "complete", False),
    ],
)
def test_an_empty_answer_to_a_call_of_a_model_is_named(
    method: str, target: str, ending: Ending, is_named: bool
) -> None:
    exchange = begun(PLAIN)
    exchange.on_request_head(make_head(target, method=method))
    exchange.on_credentials(VALUES)
    exchange.release()
    head = ResponseHead(200, ((b"Content-Length", b"0"),))
    exchange.on_response_head(head)
    exchange.on_end(head, ending=ending)
    assert (exchange.complete().hint == EMPTY) == is_named
