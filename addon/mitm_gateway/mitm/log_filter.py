"""What mitmproxy logs of a connection quotes its bytes, and those may hold a key."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable

from ..text.redact import masked_target, masked_text

# mitmproxy cuts long lines wherever that is, so a literal may have no end; a cut one goes up to the line's end.
_QUOTED = re.compile(r"""\bb(?:'(?:[^'\\]|\\.)*+(?:'|\\?\Z)|"(?:[^"\\]|\\.)*+(?:"|\\?\Z))""", re.DOTALL)
_QUERY = re.compile(r"\?[^\s'\"()<>]+")


class Unquoted(logging.Filter):
    """Takes quoted bytes out of log lines and masks the secrets of queries and what has the shape of a key."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Lets every record pass, edited."""
        text = record.getMessage()
        if record.exc_info:
            # mitmproxy's formatter would write it out of our reach, and it may name what came over the wire.
            text += "\n" + logging.Formatter().formatException(record.exc_info)
        record.msg, record.args, record.exc_info = unquoted(text), (), None
        return True


def unquoted(text: str, secrets: Iterable[str] = ()) -> str:
    """What mitmproxy says of a connection, without the bytes that a peer sent and without secrets."""
    text = _QUOTED.sub("b'…'", text)
    return masked_text(_QUERY.sub(lambda found: masked_target(found[0]), text), tuple(secrets))


_unquoted = Unquoted()
# Where connections are logged, and what HTTP/2 sends and receives with `proxy_debug`.
_LOGGERS = ("mitmproxy.proxy.server", "mitmproxy.proxy.layers.http._http_h2")


def unquote_peers() -> None:
    """Has connections logged without the bytes that peers sent."""
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_unquoted)


def quote_peers() -> None:
    """Has them logged as mitmproxy does, where the user wants to see everything."""
    for name in _LOGGERS:
        logging.getLogger(name).removeFilter(_unquoted)
