"""A finished record as OpenTelemetry's conventions describe it."""

from dataclasses import replace
from typing import Any

import pytest

from mitm_gateway.exchange.record import REPLAYED, Record
from mitm_gateway.exchange.report import Report
from mitm_gateway.llm.usage import Usage
from mitm_gateway.observe.gen_ai import Attributes, Operation, operation
from support.table import table


def record(path: str = "/v1/messages", upstream: str = "https://gw.test/base", **changes: Any) -> Record:
    known: dict[str, Any] = {
        "rule": "gw",
        "model": "claude-opus-4",
        "model_sent": "gw-large",
        "status": 200,
        "first_event_s": 0.25,
        "total_s": 1.5,
        "usage": Usage("gw-large-2", 11, 7, 5, 3, "end_turn", is_stream=True),
    }
    return Record(100.0, "POST", "api.anthropic.com", path, upstream=upstream, **{**known, **changes})


def told(*args: Any, **changes: Any) -> Operation:
    found = operation(Report.of(record(*args, **changes)))
    assert found is not None
    return found


def test_session_and_agent_have_the_names_of_the_conventions() -> None:
    span = told(session="s1", agent="a1").span
    assert (span["gen_ai.conversation.id"], span["gen_ai.agent.id"]) == ("s1", "a1")
    assert "gen_ai.conversation.id" not in told(session="s1").metric


def test_a_call_of_the_messages_api_is_described() -> None:
    shared: Attributes = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "anthropic",
        "gen_ai.request.model": "gw-large",
        "gen_ai.response.model": "gw-large-2",
        "server.address": "gw.test",
        "server.port": 443,
        "mitm_gateway.rule": "gw",
    }
    assert told() == Operation(
        name="chat gw-large",
        start_ns=100_000_000_000,
        end_ns=101_500_000_000,
        span={
            **shared,
            "mitm_gateway.model": "claude-opus-4",
            "http.response.status_code": 200,
            "gen_ai.usage.input_tokens": 19,  # the conventions count what was cached among it
            "gen_ai.usage.output_tokens": 7,
            "gen_ai.usage.cache_read.input_tokens": 5,
            "gen_ai.usage.cache_creation.input_tokens": 3,
            "gen_ai.response.finish_reasons": ("end_turn",),
            "gen_ai.request.stream": True,
            "gen_ai.response.time_to_first_chunk": 0.25,
        },
        metric=shared,
        is_error=False,
        duration_s=1.5,
        first_chunk_s=0.25,
        tokens=(("input", 19), ("output", 7)),
    )


def test_openais_input_count_includes_cached_tokens() -> None:
    found = told("/v1/chat/completions", usage=Usage("m", 11, 7, 5))
    assert found.tokens == (("input", 11), ("output", 7))
    assert found.span["gen_ai.provider.name"] == "openai"
    assert found.first_chunk_s is None  # it did not come as a stream


@table(
    ("path", "upstream", "operation_name", "provider"),
    [
        ("/v1/messages", "https://api.anthropic.com", "chat", "anthropic"),
        ("/v1/responses", "https://api.openai.com", "chat", "openai"),
        ("/v1/completions", "https://h.test", "text_completion", "openai"),
        ("/v1/embeddings", "https://h.test", "embeddings", "openai"),
        ("/model/m/invoke-with-response-stream", "https://bedrock-runtime.eu.amazonaws.com", "chat", "aws.bedrock"),
        ("/model/m/converse-stream", "https://h.test", "chat", "aws.bedrock"),
        ("/v1/messages", "https://bedrock-mantle.eu.api.aws/anthropic", "chat", "aws.bedrock"),
        ("/v1/projects/p/models/m:streamRawPredict", "https://h.test", "chat", "gcp.vertex_ai"),
        ("/v1/models/m:generateContent", "https://eu-aiplatform.googleapis.com", "generate_content", "gcp.vertex_ai"),
        ("/v1/models/m:streamGenerateContent", "https://h.test", "generate_content", "gcp.gemini"),
        ("/v1/messages", "https://r.services.ai.azure.com/anthropic", "chat", "azure.ai.inference"),
        ("/v1/responses", "https://r.openai.azure.com", "chat", "azure.ai.openai"),
        ("/v1/messages", "https://api.deepseek.com/anthropic", "chat", "deepseek"),
        ("/v1/chat/completions", "https://api.x.ai", "chat", "x_ai"),
        ("/v1/messages", "demo", "chat", "anthropic"),
    ],
)  # fmt: skip
def test_operation_and_provider_follow_from_path_and_host(
    path: str, upstream: str, operation_name: str, provider: str
) -> None:
    found = told(path, upstream)
    assert found.span["gen_ai.operation.name"] == operation_name
    assert found.span["gen_ai.provider.name"] == provider


@table(
    "path", ["/v1/messages/count_tokens", "/v1/models", "/", "/v1/projects/p/models/count-tokens:rawPredict"]
)
def test_requests_that_call_no_model_are_not_reported(path: str) -> None:
    assert operation(Report.of(record(path))) is None


def test_tokens_from_a_recording_are_not_counted_again() -> None:
    assert told().tokens
    assert not told(notes=(REPLAYED,)).tokens


def test_a_probe_is_not_reported() -> None:
    assert operation(Report.of(replace(record(), method="HEAD"))) is None


@table(
    ("changes", "error"),
    [
        ({"status": 529}, "529"),
        ({"usage": Usage(error="overloaded_error")}, "overloaded_error"),
        ({"status": 502, "refusal": "credential is not there"}, "refused"),
        ({"error": "Client disconnected.", "ending": "client_left"}, "client_left"),
        ({"error": "Client disconnected.", "ending": "timed_out"}, "timed_out"),
        ({"error": "server closed connection", "ending": "broke_off"}, "upstream_broke_off"),
    ],
)
def test_errors_have_few_kinds(changes: dict[str, Any], error: str) -> None:
    found = told(**changes)
    assert found.is_error
    assert found.span["error.type"] == error
    assert "error.type" not in found.metric


def test_long_names_are_truncated() -> None:
    found = told(model="m" * 5000, model_sent=None)
    assert len(found.name) == len("chat ") + 256
    assert found.span["gen_ai.request.model"] == "m" * 255 + "…"


def test_labels_of_any_text_of_a_peer_can_be_encoded() -> None:
    found = told(model="\ud800\x1b\n", usage=Usage(model="\udfff\n", stop_reason="\ud800"))
    for value in (found.name, *found.span.values(), *found.metric.values()):
        str(value).encode()
        assert "\n" not in str(value)


def test_the_server_address_has_port_and_no_brackets() -> None:
    found = told(upstream="http://[::1]:8443/base")
    assert (found.span["server.address"], found.span["server.port"]) == ("::1", 8443)


def test_invented_model_names_do_not_grow_the_metrics_without_bound() -> None:
    pytest.importorskip("opentelemetry.sdk")
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    from mitm_gateway.observe import otel

    reader = InMemoryMetricReader()
    instruments = otel._Instruments(MeterProvider([reader]))
    for number in range(otel.MAX_SERIES + 100):
        instruments.note(told(model_sent=f"made-up-{number}", usage=None))
    data = reader.get_metrics_data()
    assert data is not None
    (duration,) = [
        metric
        for metric in data.resource_metrics[0].scope_metrics[0].metrics
        if metric.name == "gen_ai.client.operation.duration"
    ]
    counts: list[Any] = list(duration.data.data_points)
    assert len(counts) == otel.MAX_SERIES + 1
    assert [point.count for point in counts if point.attributes == {"otel.metric.overflow": True}] == [100]
