"""Spans and metrics at a real OTLP endpoint and on the page for Prometheus, from a real mitmdump."""

import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from support.answers import Reply, Stream, anthropic_error, message_events
from support.constants import CK, ENV, GW, HEADERS, REVERSE
from support.fixture_types import StartMitmdump, StartRecorder
from support.http_client import Wire
from support.mitmdump import Mitmdump
from support.one_rule import one_rule
from support.otel_collector import Collector
from support.recorder import Recorder
from support.waiting import wait_until

pytestmark = pytest.mark.e2e

TOKEN = "collector-token-0123456789"
BODY = b'{"model":"claude-opus-4","messages":[{"role":"user","content":"a private word"}]}'
CLIENT, ERROR = 3, 2  # SPAN_KIND_CLIENT, STATUS_CODE_ERROR
OTEL = ("--set", "gateway_otel=true")


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as running:
        yield running


def start(
    mitmdump: StartMitmdump, upstream: Recorder, *options: str, env: Mapping[str, str] | None = None
) -> Mitmdump:
    rules = one_rule(f"{upstream.url}/base", "models: {map: {claude-opus-*: gw-large}}")
    return mitmdump(*options, rules=rules, modes=REVERSE, env={**ENV, **(env or {})})


def to_collector(collector: Collector, **more: str) -> dict[str, str]:
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        "OTEL_EXPORTER_OTLP_HEADERS": f"authorization=Bearer {TOKEN}",
        "OTEL_BSP_SCHEDULE_DELAY": "50",
        "OTEL_METRIC_EXPORT_INTERVAL": "50",
        **more,
    }


def post(proxy: Mitmdump, path: str = "/v1/messages?key=query-secret-0123456789") -> None:
    with Wire(proxy.port) as client:
        client.request("POST", path, HEADERS, BODY)


def test_a_call_becomes_a_span_and_counts_in_the_metrics(
    recorder: StartRecorder, mitmdump: StartMitmdump, collector: Collector, tmp_path: Path
) -> None:
    upstream = recorder(Stream(message_events("gw-large-1"), gated=False))
    logins = tmp_path / "logins"
    logins.write_text("default login somebody password of-another-host\n")
    env = to_collector(collector, OTEL_SERVICE_NAME="my-gateway", NETRC=str(logins))
    proxy = start(mitmdump, upstream, *OTEL, env=env)
    post(proxy)
    wait_until(lambda: collector.spans and len(collector.points) == 4, lambda: collector.requests)
    [span] = collector.spans
    shared: dict[str, Any] = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "anthropic",
        "gen_ai.request.model": "gw-large",
        "gen_ai.response.model": "gw-large-1",
        "server.address": "127.0.0.1",
        "server.port": upstream.port,
        "mitm_gateway.rule": "gw",
    }
    first = span.attributes.pop("gen_ai.response.time_to_first_chunk")
    assert span.attributes == {
        **shared,
        "mitm_gateway.model": "claude-opus-4",
        "http.response.status_code": 200,
        "gen_ai.usage.input_tokens": 11,
        "gen_ai.usage.output_tokens": 7,
        "gen_ai.response.finish_reasons": ["end_turn"],
        "gen_ai.request.stream": True,
    }
    assert (span.name, span.kind, span.status) == ("chat gw-large", CLIENT, 0)
    assert 0 < first <= span.seconds < 60
    assert span.resource["service.name"] == "my-gateway"
    points = {
        (point.metric, point.attributes.pop("gen_ai.token.type", None)): point for point in collector.points
    }
    tokens = {
        kind: point.sum for (name, kind), point in points.items() if name == "gen_ai.client.token.usage"
    }
    assert tokens == {"input": 11, "output": 7}
    for name in ("gen_ai.client.operation.duration", "gen_ai.client.operation.time_to_first_chunk"):
        assert (points[name, None].count, points[name, None].unit) == (1, "s")
        assert points[name, None].attributes == shared
    assert collector.requests[-1].header("authorization") == f"Bearer {TOKEN}"
    assert proxy.stop() == 0
    for secret in (CK, GW, "query-secret", "private word"):
        assert secret.encode() not in collector.raw
    assert TOKEN not in proxy.output()


def test_remaining_spans_are_delivered_at_the_end(
    recorder: StartRecorder, mitmdump: StartMitmdump, collector: Collector
) -> None:
    upstream = recorder(anthropic_error(503, "overloaded_error", "busy"))
    late = {"OTEL_BSP_SCHEDULE_DELAY": "600000", "OTEL_METRIC_EXPORT_INTERVAL": "600000"}
    proxy = start(mitmdump, upstream, *OTEL, env=to_collector(collector, **late))
    post(proxy)
    post(proxy, "/v1/models")
    assert collector.requests == []
    assert proxy.stop() == 0
    [span] = collector.spans
    assert (span.status, span.attributes["error.type"]) == (ERROR, "503")
    assert span.resource["service.name"] == "mitm-gateway"
    [duration] = [point for point in collector.points if point.metric == "gen_ai.client.operation.duration"]
    assert duration.attributes["error.type"] == "503"


@pytest.mark.parametrize("fault", ["down", "401", "silent"])
def test_a_failing_collector_causes_one_warning_and_stops_nothing(
    recorder: StartRecorder, mitmdump: StartMitmdump, collector: Collector, fault: str
) -> None:
    upstream = recorder(Stream(message_events("gw-large"), gated=False))
    env = to_collector(collector, OTEL_EXPORTER_OTLP_TIMEOUT="1")
    if fault == "silent":
        env["OTEL_EXPORTER_OTLP_ENDPOINT"] = recorder(Stream((b"x", b"y"))).url
    elif fault == "down":
        collector.close()
    collector.script = Reply(401)
    proxy = start(mitmdump, upstream, *OTEL, env=env)
    for _ in range(3):
        post(proxy)
    assert len(upstream.requests) == 3
    if fault != "silent":
        proxy.wait_for_output("gateway_otel: exporting fails")
    assert proxy.stop() == 0
    assert proxy.output().count("exporting fails") <= 1
    assert "Traceback" not in proxy.output()
    assert TOKEN not in proxy.output()


def test_prometheus_reads_the_metrics(recorder: StartRecorder, mitmdump: StartMitmdump) -> None:
    upstream = recorder(Stream(message_events("gw-large"), gated=False))
    proxy = start(mitmdump, upstream, "--set", "gateway_metrics=127.0.0.1:0")
    page = proxy.wait_for_output(r"gateway_metrics: (http://127\.0\.0\.1:\d+/metrics)")[1]
    for _ in range(2):
        post(proxy)
    # The record is noted when the answer has left, which may be a moment after the client has read it.
    wanted = {"gen_ai_client_token_usage_sum", 'gen_ai_token_type="output"', 'mitm_gateway_rule="gw"'}

    def read() -> list[str]:
        with urllib.request.urlopen(page, timeout=20) as answer:
            lines: list[str] = answer.read().decode().splitlines()
        counted = any(line.endswith(" 14.0") and all(mark in line for mark in wanted) for line in lines)
        return lines if counted else []

    lines = wait_until(read)
    assert any(line.startswith("gen_ai_client_operation_duration_seconds_bucket") for line in lines)
    assert any(line.startswith("gen_ai_client_operation_time_to_first_chunk_seconds_count") for line in lines)
    assert not any(secret in line for line in lines for secret in (CK, GW, "query-secret"))


@pytest.mark.parametrize(
    ("option", "problem"),
    [
        ("gateway_metrics=nowhere",
         'gateway_metrics is not an address to listen on; expected one such as "127.0.0.1:9464"'),
        ("gateway_metrics=127.0.0.1:{taken}", "gateway_metrics: 127.0.0.1:{taken}: Address already in use"),
    ],
)  # fmt: skip
def test_an_invalid_address_is_reported_at_start(
    recorder: StartRecorder, mitmdump: StartMitmdump, option: str, problem: str
) -> None:
    taken = recorder().port
    proxy = mitmdump("--set", option.format(taken=taken), rules=START_RULES, wait=False, env=ENV)
    assert proxy.wait_for_exit() == 1
    assert problem.format(taken=taken) in proxy.output()


START_RULES = "rules: [{match: {host: h.test}, auth: {scheme: none}}]"


@pytest.mark.parametrize("option", ["gateway_otel=true", "gateway_metrics=127.0.0.1:0"])
def test_without_the_extra_the_options_say_what_to_install(
    mitmdump: StartMitmdump, tmp_path: Path, option: str
) -> None:
    # As an import meets an installation without it.
    blocked = tmp_path / "blocked"
    blocked.mkdir()
    (blocked / "opentelemetry.py").write_text("raise ImportError(name='opentelemetry')\n")
    proxy = mitmdump("--set", option, rules=START_RULES, wait=False, env={"PYTHONPATH": str(blocked)})
    assert proxy.wait_for_exit() == 1
    name = option.partition("=")[0]
    assert f"{name} needs OpenTelemetry; " in proxy.output()
