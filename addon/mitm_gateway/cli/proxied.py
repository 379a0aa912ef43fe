"""The proxy process of `run`: mitmproxy, until the launcher's end of the standard input is closed.

A launcher that is killed cannot stop its proxy, but its end of a pipe closes in any case.
"""

from __future__ import annotations

import os
import signal
import sys
import threading

from .mitmproxy_process import run_tool

# For `python -c`: without the current directory on the path (`-P`), so that nothing there is imported.
STARTER = "import sys; sys.path.append({parent!r}); from mitm_gateway.cli.proxied import main; main()"


def main() -> None:
    """Runs `mitmweb` or `mitmdump`, as the first argument says, with the others."""
    tool, *arguments = sys.argv[1:]
    threading.Thread(target=_end_with_launcher, daemon=True).start()
    sys.exit(run_tool(tool, arguments))


def _end_with_launcher() -> None:
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
