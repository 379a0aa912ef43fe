"""A program in a pseudo-terminal, as a user starts it."""

import contextlib
import os
import pty
import re
import select
import signal
import time
from collections.abc import Iterator
from pathlib import Path

_WAIT_S = 30.0


class Terminal:
    """A program in a pseudo-terminal, and the text that it has shown."""

    def __init__(self, argv: list[str], environment: dict[str, str], folder: Path) -> None:
        self.shown = ""
        self.pid, self._file = pty.fork()
        if self.pid == 0:
            os.chdir(folder)
            os.execve(argv[0], argv, environment)

    def wait_for(self, pattern: str) -> None:
        """Return when the screen has shown a regular expression."""
        for _ in self._read():
            if re.search(pattern, self._plain()):
                return
        raise TimeoutError(f"no {pattern!r} on the screen:\n{self._plain()[-3000:]}")

    def type(self, text: str) -> None:
        os.write(self._file, text.encode())

    def exit_status(self) -> int:
        """Return the exit status of a program that ends by itself, reading its output meanwhile."""
        for _ in self._read():
            done, status = os.waitpid(self.pid, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status)
        raise TimeoutError(f"the program has not ended:\n{self._plain()[-3000:]}")

    def close(self) -> None:
        """End it in any case."""
        with contextlib.suppress(OSError):
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self._file)

    def _read(self) -> Iterator[None]:
        """Read what the program shows, and yield after each piece."""
        deadline = time.monotonic() + _WAIT_S
        while time.monotonic() < deadline:
            yield
            if select.select([self._file], [], [], 0.1)[0]:
                with contextlib.suppress(OSError):
                    self.shown += os.read(self._file, 65536).decode(errors="replace")

    def _plain(self) -> str:
        """Return the shown text without colours, with cursor moves as blanks."""
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", " ", self.shown).replace("\r", "\n")
