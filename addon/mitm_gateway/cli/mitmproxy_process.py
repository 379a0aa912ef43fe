"""mitmproxy in a process of the gateway, with memory settings that a user's own mitmdump never gets."""

import contextlib
import ctypes
import gc
import os
import platform
from collections.abc import Callable, Sequence
from importlib import import_module

# A request leaves few cycles behind; searching for them after each 700 allocations takes a tenth of the time. A
# connection leaves 165 objects and 24 KB in mitmproxy's cycles, many of them among the oldest objects. Those are
# searched every fourth time: rarely enough to be free, often enough that such memory does not accumulate.
_GC_THRESHOLDS = (20_000, 1, 1)

# `mallopt` of glibc: the size from which on a block is mapped separately, and how much free memory the process keeps.
# The kernel fills mapped memory with zeros page by page, but it can grow without a copy: usual bodies are not mapped,
# an unpacked bomb is.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_MAPPED_BYTES, _KEPT_BYTES = 20 << 20, 64 << 20

# Shells often allow 1024, and a stream needs two: one to the client, one to the upstream.
_OPEN_FILES = 10_000


def run_tool(name: str, arguments: Sequence[str]) -> int:
    """Run mitmdump or mitmweb in this process; return its exit status."""
    _load(name)
    _tune_memory()
    _allow_files()
    from mitmproxy.tools import main

    run = main.mitmweb if name == "mitmweb" else main.mitmdump
    return run(list(arguments)) or 0


def _load(name: str) -> None:
    """Import the tool and the addon with the garbage collector off."""
    gc.disable()
    import_module("mitmproxy.tools.web.master" if name == "mitmweb" else "mitmproxy.tools.dump")
    import_module("mitm_gateway.mitm.addon")


def _tune_memory() -> None:
    """Search for garbage less often, and keep up to 64 MiB of freed memory."""
    gc.collect()
    gc.freeze()  # the modules stay; they need not be searched again
    gc.collect()  # nor be counted: Python searches the oldest objects when they have grown by a quarter
    gc.set_threshold(*_GC_THRESHOLDS)
    gc.enable()
    is_tuned = any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ)
    if platform.libc_ver()[0] == "glibc" and not is_tuned:
        mallopt: Callable[[int, int], int] = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, _MAPPED_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


def _allow_files() -> None:
    """Raise the limit of open files."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(_OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
