"""The behaviour cases through `Exchange` in process: the same decisions that mitmdump and Envoy are compared with."""

from pathlib import Path

import pytest

from behaviour.case import Case
from behaviour.cases import CASES
from mitm_gateway.credentials.value import Value
from mitm_gateway.exchange.config import Config
from mitm_gateway.exchange.exchange import Exchange
from mitm_gateway.exchange.local_answers import LocalAnswer
from mitm_gateway.exchange.masked_head import MaskedHead
from mitm_gateway.exchange.steps import Forward, NeedBody, NeedCredentials
from mitm_gateway.rules.load import load
from mitm_gateway.text.redact import Secret
from mitm_gateway.wire.refusal import Refusal
from mitm_gateway.wire.request import Arrival, RequestHead, as_bytes, as_text
from support.constants import API, GW

VALUES = {"gw": Value(Secret(GW)), "other": Value(Secret("other-secret"))}
UPSTREAM = "http://127.0.0.1:9"


def head_of(case: Case) -> RequestHead:
    pairs = [("Host", "localhost")] if all(name != "Host" for name, _ in case.headers) else []
    pairs += [*case.headers, ("Content-Type", "application/json")]
    if not any(name == "Transfer-Encoding" for name, _ in pairs) and case.body:
        pairs.append(("Content-Length", str(len(case.body))))
    fields = tuple((as_bytes(name), as_bytes(value)) for name, value in pairs)
    return RequestHead(case.method, "https", API, 443, case.target, fields)


def outcome(exchange: Exchange, case: Case) -> Refusal | LocalAnswer | tuple[MaskedHead, bytes]:
    """Run a request to its end: a local answer, or the head and the body that leave."""
    body, sent_head, has_read = case.plain_body, None, False
    step = exchange.on_request_head(head_of(case))
    while True:
        match step:
            case NeedCredentials(names):
                step = exchange.on_credentials({name: VALUES[name] for name in names})
            case Forward(head, edited) if has_read:
                sent_head = head or sent_head
                assert sent_head is not None
                return sent_head, body if edited is None else edited
            case Forward(head) | NeedBody(head):
                sent_head, has_read = head, True
                step = exchange.on_request_body(body)
            case Refusal() | LocalAnswer():
                return step
            case _:
                raise AssertionError(step)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_engine_handles_the_case(case: Case, tmp_path: Path) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text(case.rules(UPSTREAM))
    ruleset = load(file, {"GW_KEY": GW, "OTHER_KEY": "other-secret"})
    exchange = Exchange(Config(ruleset), Arrival(mode="reverse"))
    result = outcome(exchange, case)
    match result:
        case Refusal():
            assert (result.status, case.sent_target) == (case.status, None)
            assert not result.retry
        case LocalAnswer():
            assert (result.status, result.body, case.sent_target) == (case.status, case.answer, None)
        case head, body:
            assert case.status == 200
            target, fields = exchange.with_secrets(head.target, head.fields)
            assert target == case.sent_target
            assert str(head.destination) == f"{UPSTREAM}/base" or target.startswith("/rest")
            sent = {
                as_text(name).lower(): as_text(value) for name, value in reversed(fields)
            }  # the first counts
            assert {name: sent.get(name) for name in case.sent_headers} == case.sent_headers
            assert body == (case.plain_body if case.sent_body is None else case.sent_body)
            assert sent["host"] == "127.0.0.1:9"
