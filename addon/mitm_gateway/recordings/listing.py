"""A recorded request as one line of a list."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from ..observe.prices import Prices
from ..observe.stats import logged_cost
from ..text.printable import dollars, one_line, short_count
from .recorded import Recorded

HEADING = f"{'#':>4}  {'time':<19}  {'session':<8}  {'model':<28} {'tokens in → out':<34} {'cost':<9} status  outcome"
_SESSION = 8
_PRICES = Prices()


def line(recorded: Recorded) -> str:
    """Return time, session, model, tokens, status and outcome of a request, and where it went or why it failed."""
    entry = recorded.entry
    session = (recorded.session or str(entry.get("session") or "-"))[:_SESSION]
    columns = (
        f"{recorded.number:>4}",
        f"{when(recorded):<19}",
        f"{session:<8}",
        f"{models(entry):<28} {token_counts(entry):<34} {cost(entry):<9} {recorded.status or '-':<6} ",
    )
    place = f"{recorded.head.method} {recorded.head.host}{recorded.head.path}"
    reason = entry.get("refusal") or recorded.error or entry.get("hint")
    words = [str(entry.get("outcome") or "-"), *([] if recorded.asked_model else [place]), str(reason or "")]
    return recorded.masks.text(one_line("  ".join([*columns, "  ".join(filter(None, words))])))


def when(recorded: Recorded) -> str:
    """Return the time of a request on this machine's clock."""
    try:
        return datetime.fromtimestamp(recorded.time).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return "-"


def models(entry: Mapping[str, object]) -> str:
    """Return the model that was asked for, and the one that was sent instead."""
    model, sent = entry.get("model"), entry.get("model_sent")
    return f"{model} → {sent}" if sent and sent != model else str(model or "-")


def token_counts(entry: Mapping[str, Any]) -> str:
    """Return the tokens of a request, those from the cache included."""
    if entry.get("input_tokens") is None and entry.get("output_tokens") is None:
        return "-"
    read, written = entry.get("cache_read_tokens"), entry.get("cache_creation_tokens")
    cached = [f"read {_short(read)}"] if read else []
    cached += [f"written {_short(written)}"] if written else []
    text = f"{_short(entry.get('input_tokens'))} → {_short(entry.get('output_tokens'))}"
    return f"{text} ({', '.join(cached)})" if cached else text


def cost(entry: Mapping[str, object]) -> str:
    """Return what a request has cost, as text."""
    known = cost_usd(entry)
    return "-" if known is None else dollars(known)


def cost_usd(entry: Mapping[str, object]) -> float | None:
    """Return what a request has cost: as logged, else by the list prices; None if that is unknown."""
    logged = logged_cost(entry)
    return logged if logged is not None else _PRICES.cost(entry)


def _short(count: int | None) -> str:
    return "-" if count is None else short_count(count)
