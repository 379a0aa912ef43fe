"""The options of mitmproxy that the gateway sets unless the user has set them."""

import logging
from typing import Any

from mitmproxy.options import Options

logger = logging.getLogger(__name__)

# Upstreams think for minutes; mitmproxy ends a connection after ten without a byte (11 has no option for that).
LONGEST_SILENCE_S, FIXED_TIMEOUT_S = 3600, 600
# Lines of a content view that are shown at once: mitmproxy's default of 512 ends inside Claude Code's system prompt.
SHOWN_LINES = 4096


def set_defaults(options: Options) -> None:
    """Set the options that do not depend on the rules."""
    set_where_unset(
        options,
        listen_host="127.0.0.1",
        keep_host_header=True,
        tcp_timeout=LONGEST_SILENCE_S,
        content_view_lines_cutoff=SHOWN_LINES,
    )


def dial_late(options: Options) -> None:
    """Have mitmproxy contact no host before a rule or a client key has decided."""
    if set_where_unset(options, connection_strategy="lazy"):
        logger.info("connection_strategy is lazy: no host is contacted before a request is decided on")


def timeout_s(options: Options) -> float:
    """Return after how many seconds of silence mitmproxy closes a connection."""
    return float(options.tcp_timeout if "tcp_timeout" in options else FIXED_TIMEOUT_S)


def set_where_unset(options: Options, **values: Any) -> dict[str, Any]:
    """Set the options that exist and that the user did not set; return those that were set.

    mitmproxy's public `has_changed` compares with the default, so an explicit default looks unset there.
    """
    chosen = {name: value for name, value in values.items() if name in options and _is_unset(options, name)}
    if chosen:
        options.update(**chosen)
    return chosen


def _is_unset(options: Options, name: str) -> bool:
    try:
        from mitmproxy.optmanager import unset

        return options._options[name].value is unset
    except (ImportError, AttributeError, KeyError):
        return not options.has_changed(name)
