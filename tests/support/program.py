"""Programs under test: the text that one has printed, its end, and a free port for it."""

import contextlib
import random
import re
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

from support.forked import Forked
from support.waiting import wait_until

TIMEOUT_S = 90.0  # a loaded CI machine with two cores


class Program:
    """A started program that prints into files, or into one."""

    def __init__(
        self, process: Forked | subprocess.Popen[bytes], output: Path, errors: Path | None = None
    ) -> None:
        self.process = process
        self._output, self._errors = output, errors

    @property
    def stdout(self) -> str:
        return self._output.read_text(errors="replace") if self._output.exists() else ""

    @property
    def stderr(self) -> str:
        return self._errors.read_text(errors="replace") if self._errors and self._errors.exists() else ""

    def output(self) -> str:
        """Everything printed so far."""
        return self.stdout + self.stderr

    def wait_for_output(self, pattern: str) -> re.Match[str]:
        """The first match of a regular expression in the output."""
        return wait_until(
            lambda: re.search(pattern, self.output()),
            lambda: f"no {pattern!r} in the output:\n{self.output()}",
            TIMEOUT_S,
            lambda: self.process.poll() is not None,
        )

    def wait_for_exit(self) -> int:
        """The exit status of a program that ends by itself."""
        return self.process.wait(TIMEOUT_S)

    def stop(self) -> int:
        """Ask it to end as Ctrl-C does, and return its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        return self.process.wait(TIMEOUT_S)

    def kill(self) -> None:
        """End it in any case; for teardown."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def _wait_until_it_listens(self, listens: Callable[[], bool]) -> None:
        try:
            wait_until(listens, timeout=TIMEOUT_S, has_ended=lambda: self.process.poll() is not None)
        except TimeoutError:
            self.kill()
            raise RuntimeError(f"{type(self).__name__} does not listen:\n{self.output()}") from None


# Linux gives clients ports from 32768 on, others from 49152: below, no connection of a test takes a port meanwhile.
_PORTS = range(10_000, 32_000)


def unused_port() -> int:
    """A port that is free now; prefer port 0 where possible."""
    while True:
        port = random.choice(_PORTS)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
