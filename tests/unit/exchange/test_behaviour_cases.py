"""The behaviour cases through `Exchange` in process: the same decisions that mitmdump and Envoy are compared with."""

from pathlib import Path

import pytest

from behaviour.case import Case
from behaviour.cases import CASES
from mitm_gateway.credentials.value import Value
from mitm_gateway.exchange.config import Config
from mitm_gateway.exchange.exchange import Exchange
from mitm_gateway.exchange.local_answers import LocalAnswer
from mitm_gateway.rules.load import load
from mitm_gateway.text.redact import Secret
from mitm_gateway.wire.refusal import Refusal
from mitm_gateway.wire.request import Arrival, RequestHead, as_bytes, as_text
from support.builders import sent_by, steps_of
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


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_engine_handles_the_case(case: Case, tmp_path: Path) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text(case.rules(UPSTREAM))
    ruleset = load(file, {"GW_KEY": GW, "OTHER_KEY": "other-secret"})
    exchange = Exchange(Config(ruleset), Arrival(mode="reverse"))
    steps = list(steps_of(exchange, head_of(case), case.plain_body, VALUES))
    match steps[-1]:
        case Refusal() as refusal:
            assert (refusal.status, case.sent_target) == (case.status, None)
            assert not refusal.retry
        case LocalAnswer() as answer:
            assert (answer.status, answer.body, case.sent_target) == (case.status, case.answer, None)
        case _:
            head, body = sent_by(steps, case.plain_body)
            assert case.status == 200
            target, fields = exchange.with_secrets(head.target, head.fields)
            assert target == case.sent_target
            assert str(head.destination) == f"{UPSTREAM}/base" or target.startswith("/rest")
            # Of several fields the first counts.
            sent = {as_text(name).lower(): as_text(value) for name, value in reversed(fields)}
            assert {name: sent.get(name) for name in case.sent_headers} == case.sent_headers
            assert body == (case.plain_body if case.sent_body is None else case.sent_body)
            assert sent["host"] == "127.0.0.1:9"
