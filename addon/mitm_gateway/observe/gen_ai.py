"""A finished record as a span and metrics of OpenTelemetry's conventions for generative AI.

Version 1.41, the last complete one: https://github.com/open-telemetry/semantic-conventions/tree/v1.41.0/docs/gen-ai.
Names, counts and times only: no content, no header and no path.
"""

import re
from dataclasses import dataclass
from typing import TypeAlias
from urllib.parse import urlsplit

from ..exchange.record import REPLAYED, Record
from ..exchange.report import Report
from ..text.printable import shown_name
from ..wire.addresses import DEFAULT_PORTS

Attributes: TypeAlias = dict[str, str | int | float | bool | tuple[str, ...]]

# The vendor of the API, from the host, or from the path where the host is a gateway.
_PROVIDERS = {
    "aws.bedrock": re.compile(r"^bedrock[\w-]*\.|/model/[^/]+/(?:invoke|converse)[^/]*$"),
    "gcp.vertex_ai": re.compile(r"aiplatform\.|RawPredict$|rawPredict$"),
    "gcp.gemini": re.compile(r"^generativelanguage\.|enerateContent$"),
    "azure.ai.openai": re.compile(r"\.openai\.azure\.com/"),
    "azure.ai.inference": re.compile(r"\.azure\.com/"),
    "deepseek": re.compile(r"\.deepseek\.com/"),
    "moonshot_ai": re.compile(r"\.moonshot\.(?:ai|cn)/"),
    "mistral_ai": re.compile(r"\.mistral\.ai/"),
    "groq": re.compile(r"\.groq\.com/"),
    "x_ai": re.compile(r"\.x\.ai/"),
    "anthropic": re.compile(r"/messages$"),
}


@dataclass(frozen=True, slots=True)
class Operation:
    """One call of a model: its span, and the attributes of its metrics. `_ns` are unix times."""

    name: str
    start_ns: int
    end_ns: int
    span: Attributes
    metric: Attributes
    is_error: bool
    duration_s: float
    first_chunk_s: float | None
    tokens: tuple[tuple[str, int], ...]


def operation(report: Report) -> Operation | None:
    """Return the call that a record describes; None if the request calls no model, such as a list of models."""
    record = report.record
    kind = record.api.operation
    if kind is None or record.method != "POST":
        return None
    asked, error = record.model_sent or record.model, _error(report)
    shared: Attributes = {
        "gen_ai.operation.name": kind,
        **_place(record),
        **_named("gen_ai.request.model", asked),
    }
    answered = _named("gen_ai.response.model", report.usage.model)
    failed = _named("error.type", error)
    total_s = record.total_s or 0.0
    start_ns = int(record.time * 1e9)
    return Operation(
        name=f"{kind} {shown_name(asked)}" if asked else kind,
        start_ns=start_ns,
        end_ns=start_ns + int(total_s * 1e9),
        span={**shared, **answered, **failed, **_span_only(report)},
        metric={**shared, **answered},
        is_error=error is not None,
        duration_s=total_s,
        first_chunk_s=record.first_event_s if report.usage.is_stream else None,
        tokens=_tokens(report),
    )


def _place(record: Record) -> Attributes:
    url = urlsplit(record.upstream or "")
    host = url.hostname or record.host
    tried = f"{host}{record.path}"
    found: Attributes = {
        "gen_ai.provider.name": next(
            (name for name, form in _PROVIDERS.items() if form.search(tried)), "openai"
        ),
        "server.address": shown_name(host),
        **_named("mitm_gateway.rule", record.rule),
    }
    if url.hostname:
        found["server.port"] = url.port or DEFAULT_PORTS[url.scheme]
    return found


def _named(key: str, value: str | None) -> Attributes:
    return {key: shown_name(value)} if value else {}


def _error(report: Report) -> str | None:
    """Return the kind of error, in few values: dashboards group by it."""
    outcome, status = report.outcome, report.record.status
    if outcome == "upstream_error":
        return report.record.late_error or (str(status) if status else outcome)
    return outcome if outcome != "ok" else None


def _span_only(report: Report) -> Attributes:
    record, usage = report.record, report.usage
    found = {
        **_named("mitm_gateway.model", record.model),
        **_named("gen_ai.conversation.id", record.session),
        **_named("gen_ai.agent.id", record.agent),
    }
    if record.status is not None:
        found["http.response.status_code"] = record.status
    found |= {f"gen_ai.usage.{kind}_tokens": count for kind, count in _tokens(report)}
    if usage.cache_read_tokens is not None:
        found["gen_ai.usage.cache_read.input_tokens"] = usage.cache_read_tokens
    if usage.cache_creation_tokens is not None:
        found["gen_ai.usage.cache_creation.input_tokens"] = usage.cache_creation_tokens
    if usage.stop_reason is not None:
        found["gen_ai.response.finish_reasons"] = (shown_name(usage.stop_reason),)
    if usage.is_stream:
        found["gen_ai.request.stream"] = True
        if record.first_event_s is not None:
            found["gen_ai.response.time_to_first_chunk"] = record.first_event_s
    return found


def _tokens(report: Report) -> tuple[tuple[str, int], ...]:
    """Return the input tokens, cached ones included as the conventions count them, and the output tokens.

    An answer from a recording has none: no vendor has counted them again.
    """
    if REPLAYED in report.record.notes:
        return ()
    counts = {"input": report.prompt_tokens, "output": report.usage.output_tokens}
    return tuple((kind, count) for kind, count in counts.items() if count is not None)
