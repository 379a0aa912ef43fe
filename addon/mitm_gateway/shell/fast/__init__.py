"""What makes mitmproxy quicker without taking anything of it away (`gateway_fast`).

Four places: `dispatch` (who has which hook, and hooks that need not wait), `wire` (reads without a detour,
fewer writes), `values` (headers, options and checks that are looked at dozens of times a request) and `memory`
(garbage, and what was freed). Everything that is looked for in mitmproxy's insides is checked first; a part
whose place looks otherwise stays off, with one line in the log.
"""

from __future__ import annotations

import logging

from mitmproxy.master import Master

from ..patches import Patches
from . import dispatch, memory, values, wire

logger = logging.getLogger(__name__)


class Fast:
    """The changes to one mitmproxy, and their undoing."""

    def __init__(self) -> None:
        self._patches = Patches()

    def install(self, master: Master) -> None:
        """Makes mitmproxy quicker, as far as its insides are as expected."""
        if self._patches:
            return
        for part in (
            dispatch.quick_hooks,
            wire.joined_writes,
            wire.direct_reads,
            wire.plain_bodies,
            values.uncopied_options,
            values.plain_headers,
            values.plain_checks,
            values.plain_forks,
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
