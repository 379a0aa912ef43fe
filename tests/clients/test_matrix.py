"""Real client programs in every mode, against an upstream that insists on the gateway's key and model names.

`make clients` installs the programs and writes the table of docs/clients.md from the results.
"""

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from clients.upstream import MODEL, TEXT, Tool, Upstream
from mitm_gateway.clients import catalogue
from mitm_gateway.clients.api_hosts import VENDOR_APIS
from support.command import Command
from support.constants import GW, ROOT
from support.program import unused_port
from support.recorder import Recorder

pytestmark = [pytest.mark.e2e, pytest.mark.clients]

CACHE = Path(os.environ.get("CLIENTS_CACHE") or ROOT / ".cache" / "clients")
PROGRAMS = Path(__file__).with_name("programs")
HOSTS = {api.name: api.pattern for api in VENDOR_APIS}
TIMEOUT_S = 120.0
ARGUMENTS = "with these arguments: "
NOTE = "the note that only the tool can read"


@dataclass(frozen=True, slots=True)
class Program:
    """One program of the matrix, as its file describes it."""

    name: str
    title: str
    client: str
    api: str
    modes: tuple[str, ...]
    command: tuple[str, ...]
    npm: tuple[str, ...] = ()
    pypi: tuple[str, ...] = ()
    # The version of Python that its packages need, if not the one that runs the tests.
    python: str = ""
    code: str = ""
    env: Mapping[str, str] | None = None
    # The host that it asks without a base URL, if that is not the API's.
    own_host: str = ""
    # The tool that reads a file, with its name and input; `{note}` is the file's path.
    tool: Mapping[str, Any] | None = None

    def tool_that_reads(self, note: Path) -> Tool | None:
        """Return the call that makes the program read a file; None if it has no such tool."""
        if self.tool is None:
            return None
        given = json.dumps(self.tool["input"]).replace("{note}", str(note))
        return Tool(self.tool["name"], json.loads(given), NOTE)

    @property
    def argv(self) -> list[str]:
        return [*self.command, self.code] if self.code else list(self.command)

    @property
    def version(self) -> str | None:
        """Return the installed version of the first package; None if it is not installed."""
        if self.npm:
            return _npm_version(self.npm[0])
        return _pypi_versions(self.python_folder).get(self.pypi[0].lower()) if self.pypi else "-"

    @property
    def python_folder(self) -> Path:
        """The virtual environment with its packages."""
        return CACHE / f"py{self.python}"

    @property
    def path(self) -> list[Path]:
        """The folders with programs, the first one first."""
        node = [CACHE / folder / "node_modules" / ".bin" for folder in ("node", "npm")]
        return [*node, self.python_folder / "bin"]


def _npm_version(package: str) -> str | None:
    file = CACHE / "npm" / "node_modules" / package / "package.json"
    return str(json.loads(file.read_text())["version"]) if file.exists() else None


@cache
def _pypi_versions(folder: Path) -> Mapping[str, str]:
    python = folder / "bin" / "python"
    if not python.exists():
        return {}
    done = subprocess.run(
        [python, "-m", "pip", "list", "--format=json"], capture_output=True, text=True, check=True
    )
    return {each["name"].lower(): each["version"] for each in json.loads(done.stdout)}


def _program(file: Path) -> Program:
    data: dict[str, Any] = yaml.safe_load(file.read_text())
    lists = {name: tuple(value) for name, value in data.items() if isinstance(value, list)}
    return Program(name=file.stem, **{**data, **lists})


ALL = [_program(file) for file in sorted(PROGRAMS.glob("*.yaml"))]
CASES = [pytest.param(each, mode, id=f"{each.name}-{mode}") for each in ALL for mode in each.modes]


class Home(Command):
    """A home for one program, with the programs of the matrix on its path."""

    path: Sequence[Path] = ()

    def environment(self, env: Mapping[str, str] | None = None) -> dict[str, str]:
        path = os.pathsep.join([*map(str, self.path), os.environ["PATH"]])
        own = {"PATH": path, "NODE_PATH": str(CACHE / "npm" / "node_modules"), "GW_KEY": GW}
        return {**super().environment(), **own, **(env or {})}


@pytest.fixture
def home(request: pytest.FixtureRequest) -> Iterator[Home]:
    """A home below the cache: Gemini CLI ignores settings below folders that everybody may write to."""
    program: Program = request.node.callspec.params["program"]
    if program.version is None:
        pytest.skip(f"not tried: {program.title} is not installed; `make clients` installs it")
    folder = CACHE / "homes" / request.node.name.replace("/", "-")
    shutil.rmtree(folder, ignore_errors=True)
    made = Home(folder)
    made.path = program.path
    if program.command[0] == "node":
        # Node finds modules from the working directory upwards. Agents would read the whole folder.
        (folder / "node_modules").symlink_to(CACHE / "npm" / "node_modules")
    yield made
    end_processes(folder)
    shutil.rmtree(folder, ignore_errors=True)


def end_processes(home: Path) -> None:
    """End the processes that a program left behind; they have its home in their environment."""
    mark = f"HOME={home}".encode()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark in (process / "environ").read_bytes().split(b"\0"):
                os.kill(int(process.name), signal.SIGKILL)


def rules(upstream: Recorder, program: Program) -> str:
    return f"""
credentials: {{gw: {{env: GW_KEY}}}}
rules:
  - name: matrix
    match: {{host: {json.dumps([HOSTS[program.api], *filter(None, [program.own_host])])}}}
    upstream: {upstream.url}
    auth: {{scheme: bearer, credential: gw}}
    models: {{default: {MODEL}}}
    respond: {{head: true}}
"""


def run_reverse(home: Home, program: Program) -> subprocess.CompletedProcess[str]:
    """Run the program in a shell that `mitm-gateway env` has set up for a gateway that `serve` runs."""
    port = unused_port()
    env = dict(program.env or {})
    gateway = home.start("serve", "--port", str(port), env=env)
    try:
        assert gateway.stderr
        for line in gateway.stderr:
            if "for all clients" in line:
                break
        client = [] if program.client == "any" else ["--client", program.client]
        printed = home.run("env", "--shell", "bash", "--port", str(port), *client, env=env)
        inserted = shlex.split(printed.stderr.partition(ARGUMENTS)[2])
        script = f"{printed.stdout}\n{shlex.join([program.argv[0], *inserted, *program.argv[1:]])}"
        return subprocess.run(
            ["bash", "-c", script], cwd=home.home, env=home.environment(env), stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
        )  # fmt: skip
    finally:
        gateway.terminate()
        gateway.communicate(timeout=30)


def run_launched(home: Home, program: Program, *options: str) -> subprocess.CompletedProcess[str]:
    is_named = catalogue.of_command(program.argv)[0].name == program.client
    client = [] if is_named else ["--client", program.client]
    return home.run("run", *options, *client, "--", *program.argv, env=program.env)


RUN: Mapping[str, Callable[[Home, Program], subprocess.CompletedProcess[str]]] = {
    "reverse": run_reverse,
    "run": run_launched,
    "intercept": lambda home, program: run_launched(home, program, "--intercept"),
}


@pytest.mark.parametrize(("program", "mode"), CASES)
def test_a_program_gets_its_answer_through_the_gateway(
    program: Program,
    mode: str,
    home: Home,
    recorder: Callable[..., Recorder],
    record_property: Callable[[str, object], None],
) -> None:
    note = home.home / "note.txt"
    note.write_text(NOTE)
    tool = program.tool_that_reads(note)
    upstream = recorder(Upstream(tool))
    home.write_rules(rules(upstream, program))
    record_property("version", program.version)
    done = RUN[mode](home, program)
    assert TEXT in done.stdout, (done, [(each.method, each.target) for each in upstream.requests])
    keys = {value for each in upstream.requests for value in each.values("authorization")}
    assert keys == {f"Bearer {GW}"}
    if tool:
        assert any(NOTE.encode() in each.body for each in upstream.requests), done
    if mode != "reverse":
        assert done.returncode == 0, done
        assert "without a request through the gateway" not in done.stderr
