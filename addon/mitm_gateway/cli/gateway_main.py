"""Main program of the gateway process that `run` starts: mitmproxy, until the launcher ends.

A launcher that is killed cannot stop its gateway, but its end of the pipe closes in any case.
"""

import os
import signal
import sys
import threading

from .console import call_when_ready, tune_log
from .mitmproxy_process import run_tool

READY = "mitm-gateway: ready"
# For `python -P -c`: `-P` keeps the current directory off the path, so that nothing there is imported.
STARTER = "import sys; sys.path.append({parent!r}); from mitm_gateway.cli.gateway_main import main; main()"


def main() -> None:
    """Run mitmproxy with the arguments of `GatewayProcess`."""
    tool, verbosity, listeners, *arguments = sys.argv[1:]
    tune_log(verbose=verbosity == "verbose")
    call_when_ready(int(listeners), lambda: print(READY, flush=True))
    threading.Thread(target=_end_with_launcher, daemon=True).start()
    sys.exit(run_tool(tool, arguments))


def _end_with_launcher() -> None:
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
