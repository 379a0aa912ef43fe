"""Spans and metrics of finished requests for OpenTelemetry collectors and Prometheus (extra `otel`).

The SDK's threads export. A failing export is logged once and never affects a request.
"""

import logging
import os
import threading
from collections.abc import Callable

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
from prometheus_client import CollectorRegistry

from ..exchange.report import Report
from ..wire.no_netrc import NoNetrcSession
from .gen_ai import Attributes, Operation, operation
from .metrics_page import MetricsPage

# The conventions' bucket boundaries.
_TOKENS = [4**power for power in range(14)]
_SECONDS = [0.01 * 2**power for power in range(14)]
_FIRST_CHUNK = [
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
]  # fmt: skip
# The time that the end of the program allows for the last export.
FLUSH_S = 3.0
# The number of combinations of model, host and operation that get separate series.
MAX_SERIES = 1000


class Telemetry:
    """Exports finished requests over OTLP, configured by the variables OTEL_*, and on a page for Prometheus.

    `warn` receives the one line about a failing export. Raises OSError if the address is not available.
    """

    def __init__(self, otlp: bool, scrape: tuple[str, int] | None, warn: Callable[[str], None]) -> None:
        self._page: MetricsPage | None = None
        self.page_port: int | None = None
        readers: list[MetricReader] = []
        if scrape:
            registry = CollectorRegistry()
            self._page = MetricsPage(*scrape, registry)
            self.page_port = self._page.port
            readers.append(PrometheusMetricReader(registry=registry))
        # Instead of the SDK's log, which repeats itself and may quote an address.
        sdk = logging.getLogger("opentelemetry")
        sdk.propagate, sdk.handlers = False, [_Once(warn)]
        resource = Resource.create({"service.name": "mitm-gateway"}).merge(OTELResourceDetector().detect())
        self._spans: TracerProvider | None = None
        if otlp and _exports("TRACES"):
            self._spans = TracerProvider(resource=resource, shutdown_on_exit=False)
            self._spans.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(session=_session())))
        if otlp and _exports("METRICS"):
            readers.append(PeriodicExportingMetricReader(OTLPMetricExporter(session=_session())))
        self._metrics = MeterProvider(readers, resource, shutdown_on_exit=False)
        self._tracer = self._spans.get_tracer("mitm_gateway") if self._spans else None
        self._instruments = _Instruments(self._metrics)

    def note(self, report: Report) -> None:
        """Export the record of a finished request."""
        if found := operation(report):
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
        """Export the rest within this time, and stop."""
        ending = threading.Thread(target=self._end, name="gateway_otel", daemon=True)
        ending.start()
        ending.join(patience_s)

    def _end(self) -> None:
        if self._page is not None:
            self._page.close()
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
        """Return the attributes, or the overflow attribute beyond the limit: clients may invent model names."""
        key = tuple(sorted(metric.items(), key=lambda item: item[0]))
        if key not in self._known and len(self._known) >= MAX_SERIES:
            return {"otel.metric.overflow": True}
        self._known.add(key)
        return metric


def _session() -> NoNetrcSession | None:
    """Return a session without ~/.netrc, unless OpenTelemetry's variables name a provider of sessions."""
    return None if any(name.endswith("_CREDENTIAL_PROVIDER") for name in os.environ) else NoNetrcSession()


def _exports(signal: str) -> bool:
    disabled = os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    return not disabled and os.environ.get(f"OTEL_{signal}_EXPORTER", "").strip().lower() != "none"


class _Once(logging.Handler):
    """Reports the first fault of an export, without its text."""

    def __init__(self, warn: Callable[[str], None]) -> None:
        super().__init__(logging.WARNING)
        self._warn = warn
        self._has_warned = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        if not self._has_warned.is_set():
            self._has_warned.set()
            self._warn("exporting fails; check OTEL_EXPORTER_OTLP_ENDPOINT (requests are not affected)")
