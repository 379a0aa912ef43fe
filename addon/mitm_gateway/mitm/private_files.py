"""Private files: recorded flows contain whole conversations, so only the user may read them."""

import contextlib
import os
import stat
from typing import Any

from mitmproxy import ctx

_PRIVATE = 0o077


def make_private() -> None:
    """Give mode 0600 to files that the process creates from now on, and to a flow file that it has just begun."""
    os.umask(os.umask(0o777) | _PRIVATE)
    save: Any = ctx.master.addons.get("save")
    # Attributes of mitmproxy's own addon; without them there is no file yet.
    with contextlib.suppress(AttributeError, OSError, ValueError):
        handle = save.stream.fo.fileno()
        status = os.fstat(handle)
        # A file that is appended to keeps the mode that its owner gave it.
        if stat.S_ISREG(status.st_mode) and status.st_size == 0 and status.st_mode & _PRIVATE:
            os.fchmod(handle, stat.S_IMODE(status.st_mode) & ~_PRIVATE)
