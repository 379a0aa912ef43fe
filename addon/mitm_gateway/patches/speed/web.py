"""mitmweb's messages to browsers: none without a browser, and one for all changes of a flow at the same moment."""

import asyncio
import sys
from types import ModuleType
from typing import Any

from mitmproxy import ctx, flow

from ..patch import Patches, expect


def fewer_messages(patches: Patches) -> None:
    """Describe flows in mitmweb to connected browsers only, and once after several changes instead of at each."""
    app, web = (sys.modules.get(f"mitmproxy.tools.web.{name}") for name in ("app", "master"))
    if app is not None and web is not None and isinstance(ctx.master, web.WebMaster):
        Messages(ctx.master, app).install(patches)


class Messages:
    """The receiver of the view's signals; mitmweb's own would hash both bodies at each of some eight signals."""

    def __init__(self, master: Any, app: ModuleType) -> None:
        self._master = master
        self._app = app
        self._changed: dict[str, flow.Flow] = {}

    def install(self, patches: Patches) -> None:
        """Replace mitmweb's receivers."""
        master, view = self._master, self._master.view
        for signal, original, receiver in (
            (view.sig_view_add, master._sig_view_add, self.added),
            (view.sig_view_update, master._sig_view_update, self.updated),
        ):
            expect(original, "flow")
            patches.set(signal, "receivers", list(signal.receivers))
            signal.disconnect(original)
            signal.connect(receiver)
        patches.on_undo(self._send)

    def added(self, flow: flow.Flow) -> None:
        """Describe a new flow."""
        if self._app.ClientConnection.connections:
            self._master._sig_view_add(flow)

    def updated(self, flow: flow.Flow) -> None:
        """Describe a flow that has changed, after the event that is being handled."""
        if not self._app.ClientConnection.connections:
            return
        if not self._changed:
            asyncio.get_running_loop().call_soon(self._send)
        self._changed[flow.id] = flow

    def _send(self) -> None:
        changed, self._changed = self._changed, {}
        for each in changed.values():
            if each in self._master.view:
                self._master._sig_view_update(each)
