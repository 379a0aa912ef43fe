"""The list of flows in mitmweb and the console: updated while responses stream, and bounded."""

import asyncio
import logging
from collections.abc import Callable

from mitmproxy import ctx, http
from mitmproxy.hooks import UpdateHook

logger = logging.getLogger(__name__)

# mitmweb hashes and sends the whole body each time, so not for every chunk.
INTERVAL_S = 1.0


def is_watched() -> bool:
    """Return whether flows are shown while they are under way: mitmdump shows them at their end only."""
    return ctx.master.addons.get("view") is not None


class Live:
    """Updates the view of flows under way, each at most once in an interval and never later than that.

    `show` puts the data that has passed so far into a flow; it returns False if there is none.
    """

    def __init__(self, show: Callable[[http.HTTPFlow], bool]) -> None:
        self._show = show
        self._next: dict[str, float] = {}
        self._waiting: dict[str, asyncio.TimerHandle] = {}

    def changed(self, flow: http.HTTPFlow) -> None:
        """Note that more has arrived."""
        if flow.id in self._waiting or not is_watched():
            return
        loop = asyncio.get_running_loop()
        due = max(self._next.get(flow.id, 0.0), loop.time())
        self._waiting[flow.id] = loop.call_at(due, self._update, flow)

    def ended(self, flow: http.HTTPFlow) -> None:
        """Forget a flow; mitmproxy itself shows its end."""
        self._next.pop(flow.id, None)
        if timer := self._waiting.pop(flow.id, None):
            timer.cancel()

    def _update(self, flow: http.HTTPFlow) -> None:
        del self._waiting[flow.id]
        self._next[flow.id] = asyncio.get_running_loop().time() + INTERVAL_S
        try:
            if self._show(flow):
                ctx.master.addons.trigger(UpdateHook([flow]))
        except Exception as fault:
            logger.warning("a flow under way could not be shown: %s", type(fault).__name__)


class Keeper:
    """Removes the oldest handled flows from the view. Flows under way, loaded or unhandled do not count."""

    def __init__(self) -> None:
        self._ended: dict[str, http.HTTPFlow] = {}

    def ended(self, flow: http.HTTPFlow, limit: int) -> None:
        """Note a flow that has ended; of more than `limit` the oldest are removed, with 0 none."""
        view = ctx.master.addons.get("view")
        if limit <= 0 or view is None:
            self._ended.clear()
            return
        self._ended.pop(flow.id, None)  # a replay ends once more
        self._ended[flow.id] = flow
        while len(self._ended) > limit:
            oldest = self._ended.pop(next(iter(self._ended)))
            view.remove([oldest])
