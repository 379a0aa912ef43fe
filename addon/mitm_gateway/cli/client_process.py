"""The client that `run` starts: it owns the terminal and receives the signals."""

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from .common import say

# The statuses that shells use for a program that does not exist, or cannot be executed.
NOT_FOUND, NOT_EXECUTABLE = 127, 126
# The terminal sends these to the whole foreground group, so the client has them already.
_OF_TERMINAL = (signal.SIGINT, signal.SIGQUIT)
_OTHERS = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def run_client(program: str, argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run the client with this terminal and input, and return its exit status as a shell would."""
    try:
        process = subprocess.Popen(argv, executable=program, env=environ)
    except OSError as fault:
        say(f"{argv[0]}: {fault.strerror}")
        return NOT_EXECUTABLE
    with _forwarding_signals(process):
        status = process.wait()
    return 128 - status if status < 0 else status


@contextmanager
def _forwarding_signals(process: subprocess.Popen[bytes]) -> Iterator[None]:
    def forward(number: int, _frame: object) -> None:
        process.send_signal(number)

    def leave(_number: int, _frame: object) -> None:
        """Do nothing: the client gets the signal itself, and would inherit SIG_IGN."""

    of_terminal = leave if os.isatty(0) else forward
    handlers = dict.fromkeys(_OTHERS, forward) | dict.fromkeys(_OF_TERMINAL, of_terminal)
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
