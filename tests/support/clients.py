"""Real clients as child processes: Claude Code from npm, curl."""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from support.constants import ROOT

CLAUDE_TIMEOUT_S = 90.0
_INSTALLED_CLAUDE = ROOT / ".cache" / "npm" / "node_modules" / ".bin" / "claude"


@dataclass(frozen=True, slots=True)
class Finished:
    """Result of a client; `code` is `None` after a timeout."""

    code: int | None
    stdout: str
    stderr: str


def find_claude() -> Path | None:
    """Claude Code: `CLAUDE_BIN`, or what `make test` installed under `.cache/npm`."""
    path = Path(os.environ.get("CLAUDE_BIN") or _INSTALLED_CLAUDE)
    return path if os.access(path, os.X_OK) else None


def run_client(
    command: Sequence[str | Path], home: Path, env: Mapping[str, str], timeout: float = CLAUDE_TIMEOUT_S
) -> Finished:
    """Run a client without input, in its own home and with only the variables of `env` and `PATH`."""
    home.mkdir(parents=True, exist_ok=True)
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "LANG": "C.UTF-8", **env}
    try:
        done = subprocess.run(
            [str(part) for part in command],
            cwd=home,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as late:
        return Finished(None, _text(late.stdout), _text(late.stderr))
    return Finished(done.returncode, done.stdout, done.stderr)


def claude_command(claude: Path, prompt: str, args: Sequence[str]) -> list[str | Path]:
    """Claude Code for one prompt, without a terminal."""
    return [claude, "-p", prompt, *args]


def curl(
    *args: str | Path, home: Path, env: Mapping[str, str] | None = None, timeout: float = 30
) -> Finished:
    """Run curl silently and without the caller's settings (`-q`)."""
    found = shutil.which("curl") or "curl"
    return run_client([found, "-q", "-sS", *args], home, env or {}, timeout)


def _text(output: bytes | str | None) -> str:
    return output.decode(errors="replace") if isinstance(output, bytes) else output or ""
