"""An exchange from the response's head to the record."""

import gzip
from collections.abc import Callable

from mitm_gateway.credentials.value import Value
from mitm_gateway.exchange.comment import comment_of
from mitm_gateway.exchange.exchange import Exchange
from mitm_gateway.exchange.guard import Policy
from mitm_gateway.exchange.record import Ending
from mitm_gateway.exchange.report import Report
from mitm_gateway.exchange.response_plan import EMPTY, ResponseHead, ResponsePlan
from mitm_gateway.text.redact import Secret
from mitm_gateway.wire.request import Fields
from support.builders import MAPPED, PLAIN, begun, make_head, make_rule, released
from support.constants import CK, GW
from support.table import table

EVENTS = ((b"Content-Type", b"text/event-stream"), (b"Content-Length", b"9"))


def answered(exchange: Exchange, status: int = 200, fields: Fields = EVENTS) -> ResponsePlan:
    """The plan for a response's head."""
    plan = exchange.on_response_head(ResponseHead(status, fields))
    assert plan is not None
    return plan


@table(
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
    exchange = released(begun(make_rule("kept", auth={"scheme": "keep"})), make_head(target, headers))
    echo = ResponseHead(200, ((b"x-echo", CK.encode()),), f"not {CK}".encode())
    plan = exchange.on_response_head(echo)
    assert plan is not None
    assert (plan.fields, plan.reason) == (((b"x-echo", b"****cdef"),), b"not ****cdef")


def test_a_response_streams_through_a_tee_that_restores_the_model() -> None:
    exchange = released(begun(MAPPED))
    plan = answered(exchange)
    assert (plan.fields, plan.is_reframed) == (EVENTS[:1], True)
    assert plan.tee is not None
    assert plan.tee.feed(b'data: {"model":"gw-x"}\n\n') == b'data: {"model":"claude-x"}\n\n'


def test_a_response_without_a_map_keeps_its_length() -> None:
    plan = answered(released(begun(PLAIN)), 200, EVENTS)
    assert (plan.fields, plan.is_reframed) == (EVENTS, False)


def test_a_rejected_credential_is_reported() -> None:
    plan = answered(released(begun(PLAIN)), 401, ())
    assert plan.rejected == ("gw", Secret(GW))


def test_a_response_cannot_lead_the_client_past_the_gateway() -> None:
    fields = ((b"Alt-Svc", b'h3=":443"; ma=86400'), (b"x-a", b"1"))
    plan = answered(released(begun(PLAIN)), 200, fields)
    assert plan.fields == ((b"x-a", b"1"),)


def test_a_switch_of_protocols_does_not_stream_through_a_tee() -> None:
    plan = answered(released(begun(PLAIN)), 101, ())
    assert plan.tee is None


def test_a_page_may_read_an_answer_only_where_its_origin_is_listed() -> None:
    fields = ((b"Access-Control-Allow-Origin", b"*"), (b"x-a", b"1"))
    for origin, kept in [("https://ok.test", fields), ("", fields[1:])]:
        head = make_head(headers={"Origin": origin} if origin else {})
        policy = Policy(origins=frozenset({"https://ok.test"}))
        plan = answered(released(begun(PLAIN, policy=policy), head), 200, fields)
        assert plan.fields == kept


def test_a_local_answer_has_no_way_back() -> None:
    exchange = begun(PLAIN)
    exchange.on_request_head(make_head(method="TRACE"))
    assert exchange.on_response_head(ResponseHead(403, ())) is None


def test_the_record_tells_the_request_from_head_to_end() -> None:
    exchange = released(begun(MAPPED))
    plan = answered(exchange)
    assert plan.tee is not None
    plan.tee.feed(b'data: {"type":"message_start","message":{"model":"gw-x","usage":{"input_tokens":3}}}\n\n')
    exchange.on_end(ResponseHead(200, EVENTS), "server closed connection", "broke_off")
    record = exchange.complete()
    assert (record.rule, record.model, record.model_sent) == ("mapped", "claude-x", "gw-x")
    assert (record.status, record.error) == (200, "server closed connection")
    assert Report.of(record).outcome == "upstream_broke_off"
    assert record.usage is not None
    assert record.usage.input_tokens == 3
    assert record.credential_age_s == 1.0


ECHOED = "gateway_key_fedcba9876543210"
EVENT = 'data: {{"type":"message_start","message":{{"model":"{0}"}}}}\n\n'


@table(
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
@table("is_escaped", [False, True])
@table("encode", [bytes, gzip.compress])
def test_a_record_contains_no_key_that_the_response_names(
    status: int, body: str, is_escaped: bool, encode: Callable[[bytes], bytes]
) -> None:
    exchange = begun(PLAIN)
    exchange.on_request_head(make_head(f"/v1/{ECHOED}", {"x-session-id": ECHOED, "x-api-key": CK}))
    exchange.on_credentials({"gw": Value(Secret(ECHOED), read_at=0.0)})
    coding = ((b"Content-Encoding", b"gzip"),) if encode is gzip.compress else ()
    head = ResponseHead(status, ((b"Content-Type", b"application/json"), *coding))
    plan = answered(exchange, status, head.fields)
    assert plan.tee is not None
    named = "".join(f"\\u{ord(each):04x}" for each in ECHOED) if is_escaped else ECHOED
    plan.tee.feed(encode(body.format(named).encode()))
    exchange.on_end(head, f"error with {ECHOED}", "broke_off")
    reports = [Report.of(each) for each in (exchange.progress("streaming", status), exchange.complete())]
    assert ECHOED not in repr([(each, each.log_entry(), comment_of(each)) for each in reports])


@table("status", [400, 404, 405, 426, 501])
def test_an_upstream_without_websockets_is_named_as_the_cause(status: int) -> None:
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    exchange = released(begun(PLAIN), make_head("/v1/responses", upgrade, method="GET"))
    head = ResponseHead(status, ((b"content-type", b"application/json"),))
    exchange.on_response_head(head)
    exchange.on_end(head)
    assert exchange.complete().hint == (
        "the upstream has no WebSocket here; add `models: {}` to the rule, and the client uses HTTP at once"
    )


@table(
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
    exchange = released(begun(PLAIN), make_head(target, method=method))
    head = ResponseHead(200, ((b"Content-Length", b"0"),))
    exchange.on_response_head(head)
    exchange.on_end(head, ending=ending)
    assert (exchange.complete().hint == EMPTY) == is_named
