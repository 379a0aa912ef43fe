"""Memory: garbage is looked for seldom, and what large bodies took is kept for the next one."""

from __future__ import annotations

import ctypes
import gc
import os
import platform
from collections.abc import Callable

from mitmproxy.master import Master

from ..patch import Patches

# Requests leave few cycles behind; looking for them after each 700 allocations costs a tenth of the time. A connection
# leaves 165 objects and 24 KB in mitmproxy's own cycles, many of them among the oldest objects, so these are looked
# at each fourth time: seldom enough to cost nothing, often enough that such memory does not pile up.
_GC_THRESHOLDS = (20_000, 1, 1)

# `mallopt` of glibc: from which size on a block is mapped by itself, and how much free memory stays with the process. What
# is mapped the kernel fills with zeros page by page, but it can grow without being copied: usual bodies are not mapped,
# what a bomb is unpacked to is.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_MAPPED_BYTES, _KEPT_BYTES = 20 << 20, 64 << 20
_GLIBC_DEFAULT_BYTES = 128 << 10


def rare_collections(_master: Master, patches: Patches) -> None:
    """Looks for garbage less often."""
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()  # what is there now stays; it need not be looked at again
    gc.collect()  # nor be counted: Python looks at the oldest objects when they have grown by a quarter
    gc.set_threshold(*_GC_THRESHOLDS)
    patches.on_undo(lambda: gc.set_threshold(*before))
    patches.on_undo(gc.unfreeze)


def kept_memory(_master: Master, patches: Patches) -> None:
    """Keeps up to 64 MiB of what was freed: a request of 1 MB otherwise has a thousand pages fetched anew."""
    is_tuned = any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ)
    if platform.libc_ver()[0] != "glibc" or is_tuned:
        return
    mallopt: Callable[[int, int], int] = ctypes.CDLL(None).mallopt

    def keep(mapped: int, kept: int) -> None:
        mallopt(_M_MMAP_THRESHOLD, mapped)
        mallopt(_M_TRIM_THRESHOLD, kept)

    keep(_MAPPED_BYTES, _KEPT_BYTES)
    patches.on_undo(lambda: keep(_GLIBC_DEFAULT_BYTES, _GLIBC_DEFAULT_BYTES))
