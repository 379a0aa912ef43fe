"""Spans and metrics of finished requests for OpenTelemetry collectors and Prometheus (extra `otel`).

The SDK's own threads deliver; where that fails it is said once, and requests go on.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from typing import Any

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, Status, StatusCode
from prometheus_client import CollectorRegistry, start_http_server

from ..exchange.record import Record
from .gen_ai import Attributes, Operation, operation

# Boundaries of the buckets: the conventions' own.
_TOKENS = [4**power for power in range(14)]
_SECONDS = [0.01 * 2**power for power in range(14)]
_FIRST_CHUNK = [
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
]  # fmt: skip
# How long the end of the program waits for what is still to be delivered.
FLUSH_S = 3.0
# How many combinations of model, host and kind the metrics tell apart.
MAX_SERIES = 1000


class Telemetry:
    """Tells of requests: over OTLP as the variables OTEL_* say, and on an address that Prometheus reads.

    `warn` gets the one line about a delivery that fails. Raises OSError where the address cannot be taken.
    """

    def __init__(self, otlp: bool, scrape: tuple[str, int] | None, warn: Callable[[str], None]) -> None:
        self._page: Any = None
        self.page_port: int | None = None
        readers: list[MetricReader] = []
        if scrape:
            registry = CollectorRegistry()
            self._page, _ = start_http_server(scrape[1], scrape[0], registry=registry)
            self.page_port = self._page.server_port
            readers.append(PrometheusMetricReader(registry=registry))
        _tell_once(warn)
        resource = _resource()
        self._spans: TracerProvider | None = None
        if otlp and _exports("TRACES"):
            self._spans = TracerProvider(resource=resource, shutdown_on_exit=False)
            self._spans.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        if otlp and _exports("METRICS"):
            readers.append(PeriodicExportingMetricReader(OTLPMetricExporter()))
        self._metrics = MeterProvider(readers, resource, shutdown_on_exit=False)
        self._tracer = self._spans.get_tracer("mitm_gateway") if self._spans else None
        self._instruments = _Instruments(self._metrics)

    def note(self, record: Record) -> None:
        """Takes the record of a request that has ended."""
        if found := operation(record):
            self._trace(found)
            self._instruments.note(found)

    def _trace(self, found: Operation) -> None:
        if self._tracer is None:
            return
        span = self._tracer.start_span(
            found.name, Context(), SpanKind.CLIENT, found.span, start_time=found.start_ns
        )
        if found.is_error:
            span.set_status(Status(StatusCode.ERROR))
        span.end(found.end_ns)

    def close(self, patience_s: float = FLUSH_S) -> None:
        """Delivers what is left, as far as that is possible in this time, and ends."""
        ending = threading.Thread(target=self._end, name="gateway_otel", daemon=True)
        ending.start()
        ending.join(patience_s)

    def _end(self) -> None:
        if self._page is not None:
            self._page.shutdown()
            self._page.server_close()
        if self._spans is not None:
            self._spans.shutdown()
        self._metrics.shutdown()


class _Instruments:
    def __init__(self, provider: MeterProvider) -> None:
        meter = provider.get_meter("mitm_gateway")
        self._tokens = meter.create_histogram(
            "gen_ai.client.token.usage", "{token}", "Number of input and output tokens used.",
            explicit_bucket_boundaries_advisory=_TOKENS,
        )  # fmt: skip
        self._duration = meter.create_histogram(
            "gen_ai.client.operation.duration", "s", "GenAI operation duration.",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )  # fmt: skip
        self._first_chunk = meter.create_histogram(
            "gen_ai.client.operation.time_to_first_chunk", "s", "Time to receive the first chunk.",
            explicit_bucket_boundaries_advisory=_FIRST_CHUNK,
        )  # fmt: skip

        self._known: set[tuple[tuple[str, object], ...]] = set()

    def note(self, found: Operation) -> None:
        shared = self._bounded(found.metric)
        failed = {key: value for key, value in found.span.items() if key == "error.type"}
        self._duration.record(found.duration_s, {**shared, **failed})
        for kind, count in found.tokens:
            self._tokens.record(count, {**shared, "gen_ai.token.type": kind})
        if found.first_chunk_s is not None:
            self._first_chunk.record(found.first_chunk_s, shared)

    def _bounded(self, metric: Attributes) -> Attributes:
        """The attributes, or those that OpenTelemetry has for all beyond a limit: clients make models up."""
        key = tuple(sorted(metric.items(), key=lambda item: item[0]))
        if key not in self._known and len(self._known) >= MAX_SERIES:
            return {"otel.metric.overflow": True}
        self._known.add(key)
        return metric


def _exports(signal: str) -> bool:
    disabled = os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    return not disabled and os.environ.get(f"OTEL_{signal}_EXPORTER", "").strip().lower() != "none"


def _resource() -> Resource:
    """What the variables say of this program; its name where they say nothing."""
    return Resource.create({"service.name": "mitm-gateway"}).merge(OTELResourceDetector().detect())


def _tell_once(warn: Callable[[str], None]) -> None:
    """Puts one line in the place of all that the SDK logs: it would repeat itself, and may quote an address."""
    sdk = logging.getLogger("opentelemetry")
    sdk.propagate = False
    sdk.handlers = [_Once(warn)]


class _Once(logging.Handler):
    def __init__(self, warn: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._warn = warn
        self._told = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        """Tells the first fault, without its text."""
        if not self._told.is_set():
            self._told.set()
            self._warn(
                "the collector takes nothing (see OTEL_EXPORTER_OTLP_ENDPOINT); requests go on without it"
            )
