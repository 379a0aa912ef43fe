"""An exchange from the request's head until it leaves: the order of its steps, and every decision."""

from typing import Any

import pytest

from mitm_gateway.credentials.value import Value
from mitm_gateway.exchange import exchange as module
from mitm_gateway.exchange import guard
from mitm_gateway.exchange.exchange import Exchange
from mitm_gateway.exchange.guard import Policy
from mitm_gateway.exchange.masked_head import MaskedHead
from mitm_gateway.exchange.plan import Pass
from mitm_gateway.exchange.steps import Forward, NeedBody, NeedCredentials, Step
from mitm_gateway.rules.schema import Rule
from mitm_gateway.text.redact import Secret
from mitm_gateway.wire.addresses import Upstream
from mitm_gateway.wire.refusal import Refusal
from mitm_gateway.wire.request import Arrival, as_text
from mitm_gateway.wire.sigv4 import AwsKeys
from support.builders import (
    BODY,
    BY_MODEL,
    KEY,
    MAPPED,
    PLAIN,
    VALUES,
    begun,
    make_head,
    make_rule,
    released,
    sent_by,
    steps_of,
)
from support.constants import API, CK, GW
from support.table import table


def sent(exchange: Exchange, step: Step) -> dict[str, str]:
    """Return the fields that are written to the upstream after a step."""
    assert isinstance(step, Forward | NeedBody)
    assert isinstance(step.head, MaskedHead)
    _, fields = exchange.with_secrets(step.head.target, step.head.fields)
    return {as_text(name).lower(): as_text(value) for name, value in fields}


@table("value", ["foo", "h2c", "websocket, foo"])
def test_a_request_leaves_without_another_upgrade_whether_a_rule_takes_it_or_not(value: str) -> None:
    head = make_head(headers={"Connection": "keep-alive, Upgrade", "Upgrade": value, **KEY})
    ruled = begun(PLAIN)
    assert isinstance(ruled.on_request_head(head), NeedCredentials)
    passed = begun(make_rule(host="other.test"), unmatched="pass").on_request_head(head)
    assert isinstance(passed, Pass)
    kept = {as_text(name).lower(): as_text(value) for name, value in passed.fields}
    for fields in (sent(ruled, ruled.on_credentials(VALUES)), kept):
        assert "upgrade" not in fields
        assert "upgrade" not in fields["connection"].lower()


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
    for name in ("decide", "read_in_turns", "edited_json", "outgoing_fields"):
        monkeypatch.setattr(module, name, noting(name, getattr(module, name)))
    released(begun(BY_MODEL, policy=guard.Policy(client_keys=(CK.encode(),))))
    assert order == ["admit", "admit", "decide", "read_in_turns", "decide", "edited_json", "outgoing_fields"]


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


def test_a_path_with_the_slash_that_google_sdks_double_passes_as_it_is() -> None:
    head = make_head("//ws/google.ai.x.BidiGenerateContent?key=k", headers=KEY)
    exchange = begun(make_rule("r", match={"path": "/v1/**"}), arrival=Arrival())
    assert exchange.on_request_head(head) == Pass(head.target, head.fields)


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


@table(
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


@table(
    ("body", "headers", "status"),
    [
        (b"[", {}, 400),
        (BODY, {"Content-Encoding": "gzip"}, 400),
        (BODY, {"Content-Encoding": "unknown"}, 400),
        (b'{"a":"' + b"a" * 100 + b'"}', {}, 413),
    ],
)
@table("rule", [MAPPED, BY_MODEL])
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


@table(
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
    assert set(released(begun(PLAIN)).all_keys) == {GW, CK}


@table("rule", [PLAIN, MAPPED, BY_MODEL])
def test_no_step_contains_a_key(rule: Rule) -> None:
    steps = list(steps_of(begun(rule), make_head("/v1/messages?key=" + CK, {**KEY, "x-note": CK})))
    assert isinstance(steps[-1], Forward)
    assert GW not in repr(steps)
    assert CK not in repr(steps)


def test_what_another_addon_edits_meanwhile_is_written_as_edited() -> None:
    exchange = begun(PLAIN)
    head, _ = sent_by(steps_of(exchange, make_head(headers=KEY)), BODY)
    fields = (*head.fields[:-1], (b"Authorization", b"Bearer other"), (b"x-new", b"1"))
    assert exchange.with_secrets("/elsewhere", fields) == ("/elsewhere", fields)


def test_a_revealed_head_is_the_one_that_is_written() -> None:
    head, _ = sent_by(steps_of(begun(PLAIN, reveal=True), make_head(headers=KEY)), BODY)
    assert (b"Authorization", f"Bearer {GW}".encode()) in head.fields


def test_a_token_for_another_api_is_noted() -> None:
    exchange = begun(PLAIN)
    exchange.on_request_head(make_head())
    exchange.on_credentials({"gw": Value(Secret(GW), api=Upstream.parse("https://api.business.test"))})
    assert exchange.record.notes == (
        "the token is for api.business.test: set upstream to https://api.business.test",
    )


def test_a_signature_is_in_no_flow_and_in_the_head_that_is_written() -> None:
    rule = make_rule(
        upstream="https://bedrock-runtime.eu-west-1.amazonaws.com",
        auth={"scheme": "sigv4", "credential": "gw", "service": "bedrock", "region": "eu-west-1"},
    )
    exchange, keys = begun(rule), AwsKeys("AKIDEXAMPLE", Secret(GW), Secret("session-token-0123456789"))
    assert isinstance(exchange.on_request_head(make_head(headers=KEY)), NeedCredentials)
    step = exchange.on_credentials({"gw": Value(Secret(GW), read_at=0.0, signing=keys)})
    assert isinstance(step, NeedBody)
    assert isinstance(exchange.on_request_body(BODY), Forward)
    kept = exchange.sign("POST", step.head.target, step.head.fields, BODY)
    _, written = exchange.with_secrets(step.head.target, kept)
    signature = next(value for name, value in written if name.lower() == b"authorization")
    assert b"Signature=" in signature
    assert signature not in dict(kept).values()
    assert b"session-token-0123456789" not in b"".join(value for _, value in kept)
    assert b"session-token-0123456789" in b"".join(value for _, value in written)
