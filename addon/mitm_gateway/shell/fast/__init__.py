"""What makes mitmproxy quicker without taking anything of it away (`gateway_fast`).

Three places: `dispatch` (who has which hook, and hooks that need not wait), `wire` (reads without a detour,
fewer writes) and `values` (headers, options and checks that are looked at dozens of times a request). Everything
that is looked for in mitmproxy's insides is checked first; a part whose place looks otherwise stays off,
with one line in the log.
"""

from __future__ import annotations

import gc
import logging

from mitmproxy.master import Master

from ..patches import Patches
from . import dispatch, values, wire

logger = logging.getLogger(__name__)

# Requests leave few cycles behind; looking for them after each 700 allocations costs a tenth of the time. A connection
# leaves 165 objects and 24 KB in mitmproxy's own cycles, many of them among the oldest objects, so these are looked
# at each fourth time: seldom enough to cost nothing, often enough that such memory does not pile up.
_GC_THRESHOLDS = (20_000, 1, 1)


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
            _rare_collections,
        ):
            try:
                part(master, self._patches)
            except (AttributeError, TypeError) as fault:
                logger.info("gateway_fast: this mitmproxy is built otherwise (%s), a part stays off", fault)

    def uninstall(self) -> None:
        """Puts mitmproxy's own ways back."""
        self._patches.undo()


def _rare_collections(_master: Master, patches: Patches) -> None:
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()  # what is there now stays; it need not be looked at again
    gc.collect()  # nor be counted: Python looks at the oldest objects when they have grown by a quarter
    gc.set_threshold(*_GC_THRESHOLDS)
    patches.on_undo(lambda: gc.set_threshold(*before))
    patches.on_undo(gc.unfreeze)
