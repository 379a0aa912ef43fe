"""Destinations of a record inside mitmproxy: comment and marker of the flow, log file, statistics, telemetry."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mitmproxy import exceptions, http
from mitmproxy.flow import Flow
from pydantic_core import to_json

from ..exchange.comment import comment_of
from ..exchange.facts import known_facts
from ..exchange.record import Record
from ..exchange.report import Report
from ..observe.log_file import LogFile
from ..observe.prices import Prices
from ..observe.stats import Stats
from ..rules.extras import installing

if TYPE_CHECKING:
    from ..observe.otel import Telemetry

logger = logging.getLogger(__name__)
# One line per request. `serve` and `run` turn it on; in another mitmdump, mitmproxy shows the flow itself.
_requests = logging.getLogger("mitm_gateway.requests")
_requests.setLevel(_requests.level or logging.WARNING)

# The key in a flow's metadata under which the Gateway view finds its facts.
FACTS = "gateway"

# A hint names the model, and clients may invent such names.
_MAX_HINTS = 200

MARKERS = {
    "ok": ":white_check_mark:",
    "refused": ":no_entry:",
    "upstream_error": ":x:",
    "upstream_broke_off": ":x:",
    "client_left": ":scissors:",
    "timed_out": ":hourglass:",
}


class Recorder:
    """Records each request that a rule takes or that is refused; writing the log never holds up the event loop."""

    def __init__(self) -> None:
        self._log: LogFile | None = None
        self._path: Path | None = None
        self._logged_hints: set[tuple[str | None, str]] = set()
        self._telemetry: Telemetry | None = None
        self._reported: tuple[bool, tuple[str, int] | None] = (False, None)
        self.stats = Stats()
        self._prices = Prices()
        self._prices_file: Path | None = None

    def write_to(self, path: Path | None) -> None:
        """Write records to this file from now on, or to none. Raises OSError if it cannot be opened."""
        if path == self._path:
            return
        opened = LogFile(path) if path else None
        self._close_log()
        self._log, self._path = opened, path

    def price_by(self, file: Path | None, *, again: bool) -> None:
        """Use the prices of a file, besides those of the package. Raises RulesError if it is faulty."""
        if again or file != self._prices_file:
            self._prices, self._prices_file = Prices.of_file(file), file

    def report_to(self, otlp: bool, scrape: tuple[str, int] | None) -> None:
        """Report over OTLP or not, and to Prometheus on an address or not at all. Raises OptionsError."""
        if (otlp, scrape) == self._reported:
            return
        self._close_telemetry()
        if otlp or scrape:
            self._telemetry = _started(otlp, scrape)
        self._reported = otlp, scrape

    def close(self) -> None:
        """Write and deliver what is pending, within seconds."""
        self._close_log()
        self._close_telemetry()

    def _close_log(self) -> None:
        if self._log is not None:
            self._log.close()
        self._log = self._path = None

    def _close_telemetry(self) -> None:
        if self._telemetry is not None:
            self._telemetry.close()
        self._telemetry, self._reported = None, (False, None)

    def progress(self, flow: http.HTTPFlow, record: Record) -> None:
        """Show the record of a flow that has not ended."""
        report = Report.of(record)
        _show(flow, report, report.log_entry(), "")

    def note(self, record: Record, flow: http.HTTPFlow | None = None) -> None:
        """Publish the record of a flow that has ended, and show it in the flow unless nobody sees that."""
        report = Report.of(record)
        entry = report.log_entry()
        record.cost_usd = self._prices.cost(entry)
        if record.cost_usd is not None:
            entry["cost_usd"] = round(record.cost_usd, 8)
        if flow is not None:
            _show(flow, report, entry, MARKERS[report.outcome])
        if report.outcome != "refused" and _requests.isEnabledFor(logging.INFO):
            _requests.info("%s", comment_of(report))
        if record.hint is not None:
            self._log_hint(record.rule, record.hint, record.status)
        if self._log is not None:
            self._log.write(to_json(entry).decode())
        self.stats.add(entry)
        if self._telemetry is not None:
            self._telemetry.note(report)

    def _log_hint(self, rule: str | None, hint: str, status: int | None) -> None:
        """Log a hint once for each rule: clients repeat what fails."""
        if (rule, hint) not in self._logged_hints and len(self._logged_hints) < _MAX_HINTS:
            self._logged_hints.add((rule, hint))
            logger.warning("%s: answered with %s: %s", rule, status, hint)


def facts_of(of: Flow) -> Mapping[str, Any]:
    """Return the facts about a flow, which may come from a file; empty if no rule took it."""
    return known_facts(of.metadata.get(FACTS))


def _show(flow: http.HTTPFlow, report: Report, entry: Mapping[str, object], marker: str) -> None:
    flow.comment = comment_of(report)
    flow.marked = marker
    flow.metadata[FACTS] = report.facts(entry)


def _started(otlp: bool, scrape: tuple[str, int] | None) -> Telemetry:
    try:
        from ..observe.otel import Telemetry
    except ImportError:
        option = "gateway_otel" if otlp else "gateway_metrics"
        raise exceptions.OptionsError(f"{option} needs OpenTelemetry; {installing('otel')}") from None
    try:
        telemetry = Telemetry(otlp, scrape, lambda text: logger.warning("gateway_otel: %s", text))
    except OSError as fault:
        place = "{}:{}".format(*scrape) if scrape else ""
        raise exceptions.OptionsError(f"gateway_metrics: {place}: {fault.strerror}") from None
    if telemetry.page_port and scrape:
        logger.info("gateway_metrics: http://%s:%d/metrics", scrape[0], telemetry.page_port)
    return telemetry
