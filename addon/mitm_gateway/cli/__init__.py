"""The command `mitm-gateway`: one module for each subcommand."""

import signal
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status: 0, 1 for a fault found, 2 for wrong usage."""
    # An interrupt during the imports would be a long traceback.
    is_interruptible = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if is_interruptible:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from . import command_line

    if is_interruptible:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    return command_line.main(argv)
