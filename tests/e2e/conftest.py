"""Fixtures of the end-to-end tests; what they give is in `tests/support/`."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import pytest

from mitm_gateway.demo import DemoGateway
from support.certificates import Authority
from support.clients import CLAUDE_TIMEOUT_S, Finished, claude_command, curl, find_claude, run_client
from support.processes import Mitmdump
from support.recorder import Recorder


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """The CA of every TLS upstream under test."""
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def recorder() -> Iterator[Callable[..., Recorder]]:
    """Starts upstreams: `recorder(script, tls=authority, names=["gw.test"], http2=True)`."""
    started: list[Recorder] = []

    def start(*args: Any, **options: Any) -> Recorder:
        started.append(Recorder(*args, **options))
        return started[-1]

    yield start
    for each in started:
        each.close()


@pytest.fixture
def mitmdump(tmp_path: Path) -> Iterator[Callable[..., Mitmdump]]:
    """Starts mitmproxy: `mitmdump("--set", "x=y", rules=TEXT, modes=["reverse:…"], …)`; see `Mitmdump`."""
    started: list[Mitmdump] = []

    def start(*args: str, **options: Any) -> Mitmdump:
        folder = tmp_path / f"mitmproxy-{len(started)}"
        folder.mkdir()
        process = Mitmdump(folder, *args, **options)
        started.append(process)
        return process

    yield start
    for each in started:
        each.kill()


@pytest.fixture
def demo() -> Iterator[str]:
    """The base URL of a demo gateway that runs in a thread of the test."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    gateway = DemoGateway(pause_s=0)
    port = asyncio.run_coroutine_threadsafe(gateway.start(), loop).result(20)
    yield f"http://127.0.0.1:{port}"
    asyncio.run_coroutine_threadsafe(gateway.stop(), loop).result(20)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(20)
    loop.close()


class RunClaude(Protocol):
    """Runs Claude Code for one prompt, with no other variables than `env` and a few that keep it quiet."""

    def __call__(
        self,
        env: Mapping[str, str],
        prompt: str = "hi",
        args: Sequence[str] = (),
        timeout: float = CLAUDE_TIMEOUT_S,
    ) -> Finished: ...


@pytest.fixture(scope="session")
def claude() -> Path:
    """The path of Claude Code's executable; the test is skipped where it is not installed."""
    if (found := find_claude()) is None:
        pytest.skip("Claude Code is not installed: `make test` gets it where npm is there, or set CLAUDE_BIN")
    return found


@pytest.fixture
def run_claude(claude: Path, tmp_path: Path) -> RunClaude:
    """Runs Claude Code in a home that lasts for the test."""

    def run(
        env: Mapping[str, str],
        prompt: str = "hi",
        args: Sequence[str] = (),
        timeout: float = CLAUDE_TIMEOUT_S,
    ) -> Finished:
        quiet = {"DISABLE_AUTOUPDATER": "1", "CLAUDE_CODE_MAX_RETRIES": "0"}
        return run_client(
            claude_command(claude, prompt, args), tmp_path / "claude-home", {**quiet, **env}, timeout
        )

    return run


@pytest.fixture
def run_curl(tmp_path: Path) -> Callable[..., Finished]:
    """Runs curl: `run_curl("--http2", "-x", proxy.url, "--cacert", proxy.ca_cert, url, env={…})`."""
    if not shutil.which("curl"):
        pytest.skip("curl is not installed")

    def run(*args: str | Path, env: Mapping[str, str] | None = None, timeout: float = 30) -> Finished:
        return curl(*args, home=tmp_path / "curl-home", env=env, timeout=timeout)

    return run
