"""An OpenTelemetry collector on loopback: an upstream whose requests are spans and metrics, as OTLP over HTTP."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

from support.answers import Reply
from support.recorder import Recorder


@dataclass(frozen=True, slots=True)
class Span:
    """A span as a collector receives it."""

    name: str
    kind: int
    status: int
    seconds: float
    attributes: dict[str, Any]
    resource: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Point:
    """A histogram's values for one set of attributes."""

    metric: str
    unit: str
    count: int
    sum: float
    attributes: dict[str, Any]


class Collector(Recorder):
    """The collector; it answers 200 unless it has another script."""

    def __init__(self) -> None:
        super().__init__(Reply())

    @property
    def spans(self) -> list[Span]:
        """All spans so far."""
        bodies = [request.body for request in self.requests if request.path == "/v1/traces"]
        return [span for body in bodies for span in _spans(body)]

    @property
    def points(self) -> list[Point]:
        """The values in the latest export of metrics; each export has all."""
        bodies = [request.body for request in self.requests if request.path == "/v1/metrics"]
        return list(_points(bodies[-1])) if bodies else []


def _spans(body: bytes) -> Iterator[Span]:
    for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
        for scope in resource.scope_spans:
            for span in scope.spans:
                seconds = (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9
                attributes, of = _plain(span.attributes), _plain(resource.resource.attributes)
                yield Span(span.name, span.kind, span.status.code, seconds, attributes, of)


def _points(body: bytes) -> Iterator[Point]:
    for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                for point in metric.histogram.data_points:
                    yield Point(metric.name, metric.unit, point.count, point.sum, _plain(point.attributes))


def _plain(pairs: Any) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(each) for each in value.array_value.values]
    return getattr(value, kind) if kind else None
