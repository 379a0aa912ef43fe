"""mitmproxy's console in a tmux terminal: send keys, read the screen."""

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from support.constants import GATEWAY
from support.processes import START_S
from support.waiting import wait_until

WAIT_S = 30.0
_COLUMNS, _ROWS = 160, 60
# Keeps the screen after the end; tmux itself now and then misses the end of a program, and its status.
_KEEP_SCREEN = '"$@"; echo $? >"$HOME/status"; exec cat'


class Console:
    """mitmproxy with the gateway. Its output stays on the screen when it ends."""

    def __init__(self, folder: Path, *args: str, rules: str, env: Mapping[str, str]) -> None:
        self.seen: list[str] = []
        self._socket = folder / "tmux"
        file = folder / "rules.yaml"
        file.write_text(rules, encoding="utf-8")
        file.chmod(0o600)  # or the gateway refuses it, where the umask lets others write
        command = [str(Path(sys.executable).with_name("mitmproxy")), "-p", "0", "-s", str(GATEWAY)]
        command += ["--set", f"confdir={folder / 'confdir'}", "--set", f"gateway_rules={file}", *args]
        environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "LANG": "C.UTF-8", **env}
        self._status = folder / "status"
        subprocess.run(
            [*self._tmux, "-f", "/dev/null", "new-session", "-d", "-x", str(_COLUMNS), "-y", str(_ROWS),
             "env", "-i", "TERM=screen-256color", *(f"{name}={value}" for name, value in environment.items()),
             "sh", "-c", _KEEP_SCREEN, "sh", *command],
            env=environment, check=True, timeout=WAIT_S,
        )  # fmt: skip
        try:
            self.port = int(self.wait_for(r"\[127\.0\.0\.1:(\d+)\]", START_S)[1])
        except BaseException:
            self.close()
            raise

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
            lambda: f"no {pattern!r} (exit status {self.exit_status()}) in:\n{self.screen()}",
            timeout,
            lambda: self.exit_status() is not None,
        )

    def exit_status(self) -> int | None:
        """The status of a console that has ended."""
        text = self._status.read_text().strip() if self._status.exists() else ""
        return int(text) if text else None

    def wait_for_exit(self) -> int:
        """Return the exit status when the console has ended."""
        wait_until(lambda: self.exit_status() is not None, self.screen, WAIT_S)
        status = self.exit_status()
        assert status is not None
        return status

    def close(self) -> None:
        """End it in any case."""
        subprocess.run([*self._tmux, "kill-server"], check=False, capture_output=True)

    @property
    def _tmux(self) -> list[str | Path]:
        return ["tmux", "-u", "-S", self._socket]

    def _ask(self, *command: str) -> str:
        done = subprocess.run(
            [*self._tmux, *command],
            capture_output=True,
            text=True,
            check=True,
            timeout=WAIT_S,
            encoding="utf-8",
        )
        return done.stdout
