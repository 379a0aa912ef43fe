"""Telemetry as the options want it: none, spans and metrics to a collector, metrics for Prometheus."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from mitmproxy import exceptions

from ..exchange.record import Record

if TYPE_CHECKING:
    from ..observe.otel import Telemetry

logger = logging.getLogger(__name__)

MISSING = "needs OpenTelemetry; pip install 'mitmproxy-gateway[otel]'"


class Reporter:
    """Passes finished records on to OpenTelemetry, where the user wants that."""

    def __init__(self) -> None:
        self._wanted: tuple[bool, tuple[str, int] | None] = (False, None)
        self._telemetry: Telemetry | None = None

    def report_to(self, otlp: bool, scrape: tuple[str, int] | None) -> None:
        """Reports over OTLP or not, and on an address for Prometheus or on none. Raises OptionsError."""
        wanted = (otlp, scrape)
        if wanted == self._wanted:
            return
        self.close()
        if otlp or scrape:
            self._telemetry = _started(otlp, scrape)
        self._wanted = wanted

    def note(self, record: Record) -> None:
        """Takes the record of a flow that has ended."""
        if self._telemetry is not None:
            self._telemetry.note(record)

    def close(self) -> None:
        """Delivers what is left, within seconds."""
        if self._telemetry is not None:
            self._telemetry.close()
        self._telemetry, self._wanted = None, (False, None)


def _started(otlp: bool, scrape: tuple[str, int] | None) -> Telemetry:
    try:
        from ..observe.otel import Telemetry
    except ImportError:
        option = "gateway_otel" if otlp else "gateway_metrics"
        raise exceptions.OptionsError(f"{option} {MISSING}") from None
    try:
        telemetry = Telemetry(otlp, scrape, lambda text: logger.warning("gateway_otel: %s", text))
    except OSError as fault:
        place = "{}:{}".format(*scrape) if scrape else ""
        raise exceptions.OptionsError(f"gateway_metrics: {place}: {fault.strerror}") from None
    if telemetry.page_port and scrape:
        logger.info("gateway_metrics: http://%s:%d/metrics", scrape[0], telemetry.page_port)
    return telemetry
