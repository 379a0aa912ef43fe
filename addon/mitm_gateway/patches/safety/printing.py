"""Texts of peers that mitmproxy prints: URLs, status lines, errors and bodies."""

from __future__ import annotations

from mitmproxy.utils import strutils

from ...text.printable import visible
from ..patch import Patches, expect


def print_safely(patches: Patches) -> None:
    """Make C1 controls and marks of direction visible; mitmproxy replaces C0 controls only."""
    escape = strutils.escape_control_characters
    expect(escape, "text", "keep_spacing")

    def escape_control_characters(text: str, keep_spacing: bool = True) -> str:
        escaped = escape(text, keep_spacing)
        # Carriage returns are spacing to mitmproxy, which splits lines at them.
        return escaped if escaped.isprintable() else "\r".join(map(visible, escaped.split("\r")))

    patches.set(strutils, "escape_control_characters", escape_control_characters)
