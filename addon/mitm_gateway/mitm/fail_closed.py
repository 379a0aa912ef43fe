"""Fail closed while the gateway's script is not loaded: 503 for every request, never open forwarding.

This is a separate module, imported before anything can go wrong, so that a script that no longer loads cannot
remove it.
"""

import contextlib

from mitmproxy import ctx, exceptions, http

from ..wire.refusal import Refusal
from .flows import refuse


class Deadman:
    """Answers every request with 503 until the next successful start of the gateway."""

    name = "gateway-deadman"

    def requestheaders(self, flow: http.HTTPFlow) -> None:
        """Refuse the request."""
        if flow.live and not flow.response:
            refuse(flow, Refusal(503, _REASON, retry=True))

    http_connect = requestheaders


_REASON = (
    "the gateway's script is not loaded; see the proxy's log, or restart it where the script was deleted"
)
_deadman = Deadman()


def stand_in() -> None:
    """Refuse every request from now on."""
    with contextlib.suppress(exceptions.AddonManagerError):
        ctx.master.addons.add(_deadman)


def stand_down() -> None:
    """Stop refusing: the gateway decides again."""
    with contextlib.suppress(exceptions.AddonManagerError):
        ctx.master.addons.remove(_deadman)
