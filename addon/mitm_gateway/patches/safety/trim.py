"""Freed memory returned to the system after large unfinished heads."""

import asyncio
import contextlib
import ctypes
import platform

_PAUSE_S = 0.5


class Trim:
    """One `malloc_trim` for all connections that end within half a second.

    glibc keeps freed blocks between live ones, so 600 heads of 128 KiB would stay with the process. Trimming takes a
    few milliseconds and is asked for after large unfinished heads only, never on the path of a request.
    """

    def __init__(self) -> None:
        is_glibc = platform.libc_ver()[0] == "glibc"
        self._trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if is_glibc else None
        self._timer: asyncio.TimerHandle | None = None

    def schedule(self) -> None:
        """Trim a moment later, unless that is already due."""
        if self._trim is not None and self._timer is None:
            with contextlib.suppress(RuntimeError):  # no loop: a test of the layers alone
                self._timer = asyncio.get_running_loop().call_later(_PAUSE_S, self._run)

    def _run(self) -> None:
        self._timer = None
        if self._trim is not None:
            self._trim(0)


trim = Trim()
