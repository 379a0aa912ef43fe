"""mitmproxy's programs as forks of a process that has imported mitmproxy already: most of a start is that import."""

from __future__ import annotations

import io
import multiprocessing
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from support.constants import ROOT

Program = Literal["mitmdump", "mitmweb"]

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["mitmproxy.tools.main", "mitmproxy.tools.web", "pydantic", "yaml"])
# The import path of an installed program: nothing of this repository is on it.
_PATH = [
    entry
    for entry in sys.path
    if (entry and not Path(entry).is_relative_to(ROOT)) or "site-packages" in entry
]


class Forked:
    """A program with these arguments and only these variables; the methods are those of `subprocess.Popen`."""

    def __init__(
        self, program: Program, args: Sequence[str], *, cwd: Path, env: Mapping[str, str], output: Path
    ) -> None:
        self._process = _FORKS.Process(
            target=_run, args=(program, list(args), cwd, dict(env), output, _PATH), daemon=True
        )
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise TimeoutError(f"process {self.pid} has not ended")
        return self._process.exitcode

    def send_signal(self, number: signal.Signals) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self._process.kill()


def _run(
    program: Program,
    args: Sequence[str],
    cwd: Path,
    env: Mapping[str, str],
    output: Path,
    path: Sequence[str],
) -> None:
    """Become the program: its session, files, folder, variables and import path."""
    from mitmproxy.tools import main

    os.setsid()
    log = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    # As Python opens them under LANG=C.UTF-8, unbuffered.
    sys.stdout = _text(1, "surrogateescape")
    sys.stderr = _text(2, "backslashreplace")
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    sys.path[:] = [*filter(None, env.get("PYTHONPATH", "").split(os.pathsep)), *path]
    sys.argv = [program, *args]
    {"mitmdump": main.mitmdump, "mitmweb": main.mitmweb}[program](args)


def _text(number: int, errors: str) -> io.TextIOWrapper:
    stream = io.FileIO(number, "w", closefd=False)
    return io.TextIOWrapper(stream, encoding="utf-8", errors=errors, write_through=True)
