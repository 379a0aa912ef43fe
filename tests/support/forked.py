"""mitmproxy's programs and `mitm-gateway` as forks of a process that has imported them: most of a start is that import."""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

from cryptography.hazmat.primitives import serialization

from mitm_gateway.rules import watch
from support.constants import GATEWAY, ROOT

ProgramName = Literal["mitmdump", "mitmweb", "mitm-gateway"]

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(
    [
        "mitmproxy.tools.main",
        "mitmproxy.tools.web",
        "mitm_gateway.mitm.addon",
        "mitm_gateway.cli.gateway_main",
    ]
)
# The import path of an installed program: nothing of this repository is on it.
_PATH = [
    entry
    for entry in sys.path
    if (entry and not Path(entry).is_relative_to(ROOT)) or "site-packages" in entry
]


class Forked:
    """A forked process; the methods are those of `subprocess.Popen`."""

    def __init__(self, process: BaseProcess) -> None:
        self._process = process
        process.start()

    @classmethod
    def start(cls, program: ProgramName, args: Sequence[str], **setting: Any) -> Forked:
        """Start a program with these arguments; the setting is that of `_run`."""
        return cls(
            _FORKS.Process(
                target=_run, args=(program, args), kwargs=setting, daemon=program != "mitm-gateway"
            )
        )

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
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0)
        return self._process.exitcode

    def send_signal(self, number: signal.Signals) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self._process.kill()


def _run(
    program: ProgramName,
    args: Sequence[str],
    *,
    cwd: Path,
    env: Mapping[str, str],
    output: Path,
    errors: Path | None = None,
    text: Path | None = None,
) -> None:
    """Become the program, with its session, folder, import path and only these variables; `text` is its input."""
    os.setsid()
    out = _appended(output)
    _take_files(os.open(text or os.devnull, os.O_RDONLY), out, _appended(errors) if errors else out)
    os.chdir(cwd)
    _take_variables(env)
    sys.path[:] = [*filter(None, env.get("PYTHONPATH", "").split(os.pathsep)), *_PATH]
    sys.argv = [program, *args]
    _take_keys_as_valid()
    watch.POLL_S = 0.05
    if program == "mitm-gateway":
        _run_command()
    if str(GATEWAY) not in args:
        _forget_the_package()
    from mitmproxy.tools import main

    {"mitmdump": main.mitmdump, "mitmweb": main.mitmweb}[program](args)


def _run_command() -> None:
    from mitm_gateway import cli
    from mitm_gateway.cli import gateway_process

    forking = {**vars(subprocess), "Popen": _Gateway}
    vars(gateway_process)["subprocess"] = SimpleNamespace(**forking)
    sys.exit(cli.main())


class _Gateway(Forked):
    """The gateway of `mitm-gateway run`, forked as well; takes the arguments that `GatewayProcess` gives `Popen`."""

    def __init__(self, argv: Sequence[str], *, env: Mapping[str, str], stdout: io.IOBase, **_: Any) -> None:
        reader, writer = os.pipe()
        self.stdin = os.fdopen(writer, "wb")
        call = (argv[4:], env, reader, writer, stdout.fileno())
        super().__init__(multiprocessing.get_context("fork").Process(target=_run_gateway, args=call))
        os.close(reader)


def _run_gateway(args: Sequence[str], env: Mapping[str, str], reader: int, writer: int, output: int) -> None:
    from mitm_gateway.cli import gateway_main

    os.setsid()
    os.close(writer)
    _take_files(reader, output, output)
    _take_variables(env)
    sys.argv = ["-c", *args]
    gateway_main.main()


def _take_keys_as_valid() -> None:
    """Skip the validation of RSA keys: mitmproxy loads its CA twice at a start, which was two thirds of a fork's work."""
    load = serialization.load_pem_private_key
    vars(serialization)["load_pem_private_key"] = partial(load, unsafe_skip_rsa_key_validation=True)


def _forget_the_package() -> None:
    """Have a script import the package as if it had not been loaded."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "mitm_gateway"]:
        del sys.modules[name]


def _appended(file: Path) -> int:
    return os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)


def _take_variables(env: Mapping[str, str]) -> None:
    os.environ.clear()
    os.environ.update(env)


def _take_files(reader: int, output: int, errors: int) -> None:
    """Take standard input, output and errors as Python opens them under LANG=C.UTF-8, unbuffered."""
    for number, file in enumerate((reader, output, errors)):
        os.dup2(file, number)
    with contextlib.suppress(ValueError):
        sys.stdin.close()
    sys.stdin = io.TextIOWrapper(io.FileIO(0, closefd=False), encoding="utf-8", errors="surrogateescape")
    sys.stdout = _text(1, "surrogateescape")
    sys.stderr = _text(2, "backslashreplace")


def _text(number: int, errors: str) -> io.TextIOWrapper:
    stream = io.FileIO(number, "w", closefd=False)
    return io.TextIOWrapper(stream, encoding="utf-8", errors=errors, write_through=True)
