"""A program in a terminal, as a user starts it: tmux presses its keys and reads its screen."""

import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from support.waiting import wait_until

WAIT_S = 30.0
_COLUMNS, _ROWS = 160, 60
# Keeps the screen after the end; tmux itself now and then misses the end of a program, and its status.
_KEEP_SCREEN = '"$@"; echo $? >"$TEST_STATUS"; exec cat'


class Terminal:
    """A program in a folder, and its screen, which stays when the program ends; `seen` has each reading of it."""

    def __init__(self, folder: Path, command: Sequence[str | Path], env: Mapping[str, str]) -> None:
        self.seen: list[str] = []
        self._socket, self._status = folder / "tmux", folder / "status"
        environment = {**env, "TEST_STATUS": str(self._status)}
        self._ask(
            "-f", "/dev/null", "new-session", "-d", "-c", str(folder), "-x", str(_COLUMNS), "-y", str(_ROWS),
            "env", "-i", "TERM=screen-256color", *(f"{name}={value}" for name, value in environment.items()),
            "sh", "-c", _KEEP_SCREEN, "sh", *map(str, command),
        )  # fmt: skip

    def screen(self) -> str:
        """Return the current screen."""
        shown = self._ask("capture-pane", "-p")
        self.seen.append(shown)
        return shown

    def press(self, *keys: str) -> None:
        """Press keys, named as tmux names them."""
        self._ask("send-keys", *keys)

    def type(self, text: str) -> None:
        """Type a text."""
        self._ask("send-keys", "-l", text)

    def wait_for(self, pattern: str, timeout: float = WAIT_S) -> re.Match[str]:
        """The first match of a regular expression on the screen."""
        return wait_until(
            lambda: re.search(pattern, self.screen()),
            lambda: f"no {pattern!r} (exit status {self._exit_status()}) in:\n{self.screen()}",
            timeout,
            lambda: self._exit_status() is not None,
        )

    def wait_for_exit(self) -> int:
        """Return the exit status when the program has ended, and read its last screen."""
        wait_until(lambda: self._exit_status() is not None, self.screen, WAIT_S)
        self.screen()
        status = self._exit_status()
        assert status is not None
        return status

    def close(self) -> None:
        """End it in any case."""
        subprocess.run(["tmux", "-S", self._socket, "kill-server"], check=False, capture_output=True)

    def _exit_status(self) -> int | None:
        text = self._status.read_text().strip() if self._status.exists() else ""
        return int(text) if text else None

    def _ask(self, *command: str) -> str:
        return subprocess.run(
            ["tmux", "-u", "-S", self._socket, *command],
            capture_output=True, encoding="utf-8", check=True, timeout=WAIT_S,
        ).stdout  # fmt: skip
