"""Lets mitmweb and the console forget old flows, which they would keep for ever."""

from __future__ import annotations

from mitmproxy import ctx, http


class Keeper:
    """Takes the oldest handled flows out of the view. Flows under way, loaded or unhandled are not counted."""

    def __init__(self) -> None:
        self._ended: dict[str, http.HTTPFlow] = {}

    def ended(self, flow: http.HTTPFlow, limit: int) -> None:
        """Notes a flow that has ended; of more than `limit` the oldest go, with 0 none do."""
        view = ctx.master.addons.get("view")
        if limit <= 0 or view is None:
            self._ended.clear()
            return
        if flow.websocket is not None:
            return  # its head has ended and its messages go on
        self._ended.pop(flow.id, None)  # a replay ends anew
        self._ended[flow.id] = flow
        while len(self._ended) > limit:
            oldest = self._ended.pop(next(iter(self._ended)))
            view.remove([oldest])
