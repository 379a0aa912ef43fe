"""What makes mitmproxy quicker without taking anything of it away (`gateway_fast`).

Four places: `dispatch` (who has which hook, and hooks that need not wait), `wire` (reads without a detour,
fewer writes), `values` (headers, options and checks that are looked at dozens of times a request) and `memory`
(garbage, and what was freed). Everything that is looked for in mitmproxy's insides is checked first; a part
whose place looks otherwise stays off, with one line in the log.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from mitmproxy.master import Master

from ..patch import Patches
from . import hooks, lookups, memory, sockets

logger = logging.getLogger(__name__)


class Fast:
    """The changes to one mitmproxy, and their undoing."""

    def __init__(self) -> None:
        self._patches = Patches()
        self._dispatch: hooks.Dispatch | None = None
        self._sending = sockets.Sending()

    def install(self, master: Master) -> None:
        """Makes mitmproxy quicker, as far as its insides are as expected."""
        if self._patches:
            return
        self._dispatch = hooks.Dispatch(master.addons)
        for part in (
            self._dispatch.quick_hooks,
            self._sending.join_writes,
            sockets.direct_reads,
            sockets.plain_bodies,
            lookups.uncopied_options,
            lookups.plain_headers,
            lookups.plain_checks,
            lookups.plain_forks,
            memory.rare_collections,
            memory.kept_memory,
        ):
            try:
                part(master, self._patches)
            except (AttributeError, TypeError) as fault:
                logger.info("gateway_fast: this mitmproxy is built otherwise (%s), a part stays off", fault)

    def uninstall(self) -> None:
        """Puts mitmproxy's own ways back."""
        self._patches.undo()
        self._dispatch = None

    def after_answer(self, addon: object, action: Callable[[], None]) -> None:
        """Lets an addon do something that raises nothing when the answer has left; at once, where others could look."""
        if self._dispatch is not None and self._dispatch.is_last(addon, "response", "error"):
            self._sending.after(action)
        else:
            action()
