"""`mitm-gateway` as users run it: in a process, with its own home."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from support.constants import ROOT
from support.forked import Forked, ProgramName
from support.program import Program
from support.recorder import Recorder

KEY = "gho_0123456789abcdef0123"  # in the variables of `environment_form`


class Command:
    """The command in its own home folder; `env` is added to a bare environment."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self._forked: list[Program] = []
        home.mkdir(parents=True, exist_ok=True)

    @property
    def config(self) -> Path:
        """Folder of the command's default rules file."""
        return self.home / ".config" / "mitm-gateway"

    @property
    def logs(self) -> list[Path]:
        """The logs of the runs, the oldest first."""
        return sorted((self.home / ".local" / "state" / "mitm-gateway").glob("run-*.log"))

    def argv(self, *args: str | Path) -> list[str]:
        """The command line that runs the command of this working copy."""
        start = f"import sys; sys.path.insert(0, {str(ROOT / 'addon')!r}); "
        start += "from mitm_gateway.cli import main; sys.exit(main())"
        return [sys.executable, "-P", "-c", start, *map(str, args)]

    def environment(self, env: Mapping[str, str] | None = None) -> dict[str, str]:
        """Environment of the command."""
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "LANG": "C.UTF-8",
            "DISABLE_AUTOUPDATER": "1",
            "CLAUDE_CODE_MAX_RETRIES": "0",
            **(env or {}),
        }

    def fork(
        self,
        *args: str | Path,
        env: Mapping[str, str] | None = None,
        program: ProgramName = "mitm-gateway",
        text: str = "",
    ) -> Program:
        """Start the command, or a program of mitmproxy, forked; `text` is its input."""
        folder = Path(tempfile.mkdtemp(dir=self.home, prefix=".started-"))
        given, output, errors = (folder / name for name in ("input", "output", "errors"))
        given.write_text(text)
        process = Forked.start(
            program, [*map(str, args)],
            cwd=self.home, env=self.environment(env), output=output, errors=errors, text=given,
        )  # fmt: skip
        self._forked.append(Program(process, output, errors))
        return self._forked[-1]

    def kill(self) -> None:
        """End what was forked in any case; for teardown."""
        for running in self._forked:
            running.kill()

    def start(
        self, *args: str | Path, env: Mapping[str, str] | None = None, stdin: int = subprocess.DEVNULL
    ) -> subprocess.Popen[str]:
        """Start the command in a new interpreter."""
        return subprocess.Popen(
            self.argv(*args),
            cwd=self.home,
            env=self.environment(env),
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(
        self, *args: str | Path, env: Mapping[str, str] | None = None, text: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run the command to its end, forked; `text` is its input."""
        running = self.fork(*args, env=env, text=text)
        status = running.wait_for_exit()
        return subprocess.CompletedProcess(args, status, running.stdout, running.stderr)

    def write_rules(self, text: str) -> Path:
        """Write the default rules file."""
        self.config.mkdir(parents=True, exist_ok=True)
        file = self.config / "rules.yaml"
        file.write_text(text)
        return file


def names(words: Sequence[str], environment: str) -> set[str]:
    """Return those of these variables that an `env` listing contains."""
    held = {line.partition("=")[0] for line in environment.splitlines()}
    return held & set(words)


def environment_form(upstream: Recorder) -> dict[str, str]:
    """The variables that stand for a rules file with one upstream."""
    return {"ANTHROPIC_AUTH_MODE": "bearer", "ANTHROPIC_BASE_URL": upstream.url, "ANTHROPIC_API_KEY": KEY}
