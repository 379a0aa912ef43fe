"""The gateway as a child process of `run`, for the life of its client."""

import contextlib
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from .console import FIRST_CLIENT
from .gateway_main import READY, STARTER

START_S = 60.0
_STOP_S = 5.0
_POLL_S = 0.02
_PORT_TAKEN = "address already in use"
_TIME = re.compile(r"^\[[0-9:.]+\] ")
_STARTED = re.compile(r" listening at |^Error logged during startup|connection_strategy is lazy")
_WEB = re.compile(r"Web server listening at (\S+)")


class GatewayError(Exception):
    """A gateway that did not start; the text is its output."""


def free_ports(count: int) -> list[int]:
    """Return loopback ports that are free at the moment."""
    with contextlib.ExitStack() as probes:
        opened = [probes.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [int(probe.getsockname()[1]) for probe in opened]


class GatewayProcess:
    """mitmdump or mitmweb with the gateway; `stop` ends it, and so does the end of this process."""

    def __init__(
        self,
        arguments: Sequence[str],
        listeners: int,
        log: Path,
        environ: Mapping[str, str],
        *,
        web: bool,
        verbose: bool = False,
    ) -> None:
        self._log = log
        package = str(Path(__file__).resolve().parents[2])
        tool = "mitmweb" if web else "mitmdump"
        words = [tool, "verbose" if verbose else "quiet", str(listeners), *arguments]
        with open(log, "ab", opener=lambda file, flags: os.open(file, flags | os.O_TRUNC, 0o600)) as output:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", STARTER.format(parent=package), *words],
                env={**environ, "PYTHONUNBUFFERED": "1"},
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                # In another session: Ctrl-C in the terminal is for the client.
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def has_ended(self) -> bool:
        """True once the process has ended."""
        return self._process.poll() is not None

    @property
    def web_url(self) -> str | None:
        """Address of mitmweb's page, with the token that opens it."""
        found = _WEB.search(self._output())
        return found[1] if found else None

    def wait_until_ready(self, ca: Path | None) -> None:
        """Return when rules are in force, every listener is open and the CA certificate is written.

        On its first start mitmproxy writes that certificate after it has begun to listen. Raises GatewayError.
        """
        deadline = time.monotonic() + START_S
        while not (READY in self._output() and (ca is None or is_written(ca))):
            if self.has_ended:
                raise GatewayError(fault_in(self._output()) or "it ended without output")
            if time.monotonic() > deadline:
                raise GatewayError(f"it is not ready after {START_S:g} s; its log is {self._log}")
            time.sleep(_POLL_S)

    def has_connections(self) -> bool:
        """Return True if a client has connected."""
        return FIRST_CLIENT in self._output()

    def lost_a_port(self) -> bool:
        """Return True if another program took a port between the choice and the start."""
        return _PORT_TAKEN in self._output().lower()

    def stop(self) -> None:
        """End the process, by force if it does not end by itself."""
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _output(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")


def fault_in(output: str) -> str:
    """Return the part of a failed start's output that tells why; mitmproxy opens its listeners all the same."""
    lines = output.strip().splitlines()
    printed = [_TIME.sub("", line) for line in lines if not _STARTED.search(line)]
    return "\n".join(printed or lines)


def is_written(certificate: Path) -> bool:
    """Return whether a certificate file is complete."""
    with contextlib.suppress(OSError):
        return certificate.read_text().rstrip().endswith("-----END CERTIFICATE-----")
    return False
