"""Texts of peers that mitmproxy prints: URLs, status lines, errors and bodies."""

import re
from typing import Any

from mitmproxy.addons.dumper import Dumper
from mitmproxy.utils import strutils

from ...text.printable import visible
from ..patch import Patches

# The colours that mitmproxy itself puts into a line.
_COLOUR = re.compile(r"(\x1b\[[0-9;]*+m)")


def print_safely(patches: Patches) -> None:
    """Make characters visible that act on a terminal.

    mitmproxy replaces C0 controls only, and none where it prints the end of a WebSocket or the path of a message.
    """
    escape, echo = strutils.escape_control_characters, Dumper.echo

    def escape_control_characters(text: str, keep_spacing: bool = True) -> str:
        escaped = escape(text, keep_spacing)
        # Carriage returns are spacing to mitmproxy, which splits lines at them.
        return escaped if escaped.isprintable() else "\r".join(map(visible, escaped.split("\r")))

    def echo_visibly(self: Dumper, text: str, ident: Any = None, **style: Any) -> None:
        if not text.isprintable():
            parts = enumerate(_COLOUR.split(text))  # every other one is a colour
            text = "".join([part if place % 2 else visible(part) for place, part in parts])
        echo(self, text, ident, **style)

    patches.set(Dumper, "echo", echo_visibly)
    patches.set(strutils, "escape_control_characters", escape_control_characters)
