"""What mitmproxy logs of a broken request quotes its bytes, and those may hold a key."""

from __future__ import annotations

import logging
import re

from ..redact import masked_text

_QUOTED = re.compile(r"""\bb(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")""")


class Unquoted(logging.Filter):
    """Takes quoted bytes out of log lines and masks what has the shape of a key."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Lets every record pass, edited."""
        record.msg, record.args = masked_text(_QUOTED.sub("b'…'", record.getMessage())), ()
        return True


_unquoted = Unquoted()


def unquote_peers() -> None:
    """Has connections logged without the bytes that peers sent."""
    logging.getLogger("mitmproxy.proxy.server").addFilter(_unquoted)


def quote_peers() -> None:
    """Has them logged as mitmproxy does, where the user wants to see everything."""
    logging.getLogger("mitmproxy.proxy.server").removeFilter(_unquoted)
