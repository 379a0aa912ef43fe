"""mitmproxy's log lines about a connection quote its bytes, and those may contain a key."""

import logging
import re
from collections.abc import Iterable

from ..text.printable import visible
from ..text.redact import masked_target, masked_text

# mitmproxy cuts long lines anywhere, so a literal may have no end; a cut one extends to the end of the line.
_QUOTED = re.compile(r"""\bb(?:'(?:[^'\\]|\\.)*+(?:'|\\?\Z)|"(?:[^"\\]|\\.)*+(?:"|\\?\Z))""", re.DOTALL)
_QUERY = re.compile(r"\?[^\s'\"()<>]+")


class Unquoted(logging.Filter):
    """Removes quoted bytes from log lines, and masks secrets in queries and everything shaped like a key."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Edit a record; every record passes."""
        text = record.getMessage()
        if record.exc_info:
            # mitmproxy's formatter would add it later, and it may quote what was received.
            text += "\n" + logging.Formatter().formatException(record.exc_info)
        record.msg, record.args, record.exc_info = unquoted(text), (), None
        return True


def unquoted(text: str, secrets: Iterable[str] = ()) -> str:
    """Return mitmproxy's text about a connection without the bytes that a peer sent and without secrets."""
    text = _QUOTED.sub("b'…'", text)
    return visible(masked_text(_QUERY.sub(lambda found: masked_target(found[0]), text), tuple(secrets)))


_unquoted = Unquoted()
# The loggers of connections, and of HTTP/2 frames with `proxy_debug`.
_LOGGERS = ("mitmproxy.proxy.server", "mitmproxy.proxy.layers.http._http_h2")


def unquote_peers(wanted: bool) -> None:
    """Log connections without the bytes that peers sent or, where the user wants to see everything, as mitmproxy does."""
    for log in map(logging.getLogger, _LOGGERS):
        (log.addFilter if wanted else log.removeFilter)(_unquoted)
