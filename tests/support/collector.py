"""An OpenTelemetry collector on loopback that records OTLP over HTTP."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

WAIT_S = 30.0


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


class Collector:
    """The server. It answers with `status` and keeps the `headers` of the latest request."""

    def __init__(self) -> None:
        self.status = 200
        self.spans: list[Span] = []
        self.points: list[Point] = []
        self.raw = bytearray()
        self.headers: dict[str, str] = {}
        self.requests = 0
        self._changed = threading.Condition()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def wait_until(self, fits: Callable[[Collector], object]) -> None:
        """Return when the received data satisfies the condition."""
        deadline = time.monotonic() + WAIT_S
        with self._changed:
            while not fits(self):
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError(f"{self.requests} requests; {self.spans}; {self.points}")
                self._changed.wait(left)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                collector._take(self.path, dict(self.headers), body)
                self.send_response(collector.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Log nothing."""

        return Handler

    def _take(self, path: str, headers: dict[str, str], body: bytes) -> None:
        with self._changed:
            self.requests += 1
            self.headers = headers
            self.raw += body
            if path == "/v1/traces":
                self.spans += _spans(body)
            else:
                self.points = list(_points(body))
            self._changed.notify_all()


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
    return {pair.key: _value(pair.value) for pair in pairs if isinstance(pair, KeyValue)}


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(each) for each in value.array_value.values]
    return getattr(value, kind) if kind else None
