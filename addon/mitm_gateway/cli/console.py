"""The log of a gateway that `serve` or `run` started: a line for each ruled request, no connection chatter."""

import logging
import re
from collections.abc import Callable

# mitmproxy logs each connection that clients open and close here.
_CHATTER = logging.getLogger("mitmproxy.proxy.server")
# And here that it loads the gateway.
_SCRIPTS = logging.getLogger("mitmproxy.addons.script")
_REQUESTS = logging.getLogger("mitm_gateway.requests")
FIRST_CLIENT = "first client connected"
_IN_FORCE = re.compile(r"\d rules? in force")
_LISTENING = re.compile(r" listening at ")


class _FirstClient(logging.Filter):
    """A filter that drops messages about connections, except the first one of a client."""

    def __init__(self) -> None:
        super().__init__()
        self._is_awaited = True

    def filter(self, record: logging.LogRecord) -> bool:
        """Return True for problems, and for the first connection of a client."""
        if record.levelno > logging.INFO:
            return True
        is_first = self._is_awaited and "client connect" in record.getMessage()
        if is_first:
            self._is_awaited = False
            record.msg, record.args = FIRST_CLIENT, ()
        return is_first


def tune_log(*, verbose: bool) -> None:
    """Log one line for each ruled request; with `verbose`, mitmproxy's own lines too."""
    _REQUESTS.setLevel(logging.INFO)
    if not verbose:
        _CHATTER.addFilter(_FirstClient())
        _SCRIPTS.addFilter(lambda record: record.levelno > logging.INFO)


class ReadyHandler(logging.Handler):
    """A log handler that calls back once rules are in force and all listeners are open."""

    def __init__(self, listeners: int, ready: Callable[[], None]) -> None:
        super().__init__(logging.INFO)
        self._awaited = listeners
        self._in_force = self._has_called = False
        self._ready = ready

    def emit(self, record: logging.LogRecord) -> None:
        """Note a message of the start."""
        text = record.getMessage()
        self._in_force |= bool(_IN_FORCE.search(text))
        self._awaited -= bool(_LISTENING.search(text)) and "Web server" not in text
        if self._in_force and self._awaited <= 0 and not self._has_called:
            self._has_called = True
            self._ready()


def call_when_ready(listeners: int, ready: Callable[[], None]) -> None:
    """Call back once the gateway in this process answers on this many listeners."""
    logging.getLogger().addHandler(ReadyHandler(listeners, ready))
