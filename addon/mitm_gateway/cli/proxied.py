"""The proxy process of `run`: mitmproxy, until the launcher's end of the standard input is closed.

A launcher that is killed cannot stop its proxy, but its end of a pipe closes in any case.
"""

from __future__ import annotations

import os
import signal
import sys
import threading

# For `python -c`: without the current directory on the path (`-P`), so that nothing there is imported.
STARTER = "import sys; sys.path.append({parent!r}); from mitm_gateway.cli.proxied import main; main()"


def main() -> None:
    """Runs `mitmweb` or `mitmdump`, as the first argument says, with the others."""
    from mitmproxy.tools import main as tools

    tool, *arguments = sys.argv[1:]
    threading.Thread(target=_end_with_launcher, daemon=True).start()
    run = tools.mitmweb if tool == "mitmweb" else tools.mitmdump
    sys.exit(run(arguments) or 0)


def _end_with_launcher() -> None:
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
