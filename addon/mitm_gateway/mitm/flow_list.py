"""The list of flows in mitmweb and the console, which would otherwise grow without bound."""

from mitmproxy import ctx, http


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
