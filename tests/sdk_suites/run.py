"""Run the API tests of a vendor's SDK without and with the gateway, and compare results, requests and responses.

`make sdk-suites` runs this for each SDK. The gateway maps every model's name and restores it in the responses.
"""

import json
import os
import shutil
import subprocess
import sys
import venv
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.clones import cloned
from support.constants import ROOT
from support.mitmdump import Mitmdump
from support.program import unused_port

CACHE = ROOT / ".cache" / "sdk-suites"
HERE = Path(__file__).parent
PREFIX = "mapped-"
TOOLS = (
    "pytest", "pytest-asyncio", "pytest-xdist", "respx", "rich", "time-machine", "dirty-equals", "nest-asyncio",
    "inline-snapshot", "http-snapshot", "griffe", "standardwebhooks", "trio",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Sdk:
    """An SDK: its repository on GitHub, package, host, and the path behind the host."""

    repository: str
    package: str
    host: str
    base: str = ""

    @property
    def name(self) -> str:
        return self.repository.partition("/")[2]


SDKS = (
    Sdk("anthropics/anthropic-sdk-python", "anthropic", "api.anthropic.com"),
    Sdk("openai/openai-python", "openai", "api.openai.com", "/v1"),
)


@dataclass(frozen=True, slots=True)
class Seen:
    """One run: the outcome of each test, the requests in order, and the bodies that the SDK received."""

    outcomes: dict[str, str]
    requests: list[list[str]]
    received: list[str]


def main(names: list[str]) -> int:
    """Compare the named SDKs, or all; return the exit status."""
    failed = [sdk.name for sdk in SDKS if not names or sdk.name in names if not _is_same(sdk)]
    return 1 if failed else 0


def _is_same(sdk: Sdk) -> bool:
    folder = cloned(f"https://github.com/{sdk.repository}", CACHE / sdk.name)
    python = _environment(sdk, folder)
    direct, through = _run(sdk, folder, python, is_mapped=False), _run(sdk, folder, python, is_mapped=True)
    found = [*_differences(direct, through)]
    outcomes = list(direct.outcomes.values())
    counts = ", ".join(f"{outcomes.count(each)} {each}" for each in sorted({*outcomes}))
    mapped = sum(PREFIX in line for _, *rest in through.requests for line in rest[:1])
    print(
        f"{sdk.name} {_commit(folder)}: {len(outcomes)} tests ({counts}), {len(through.requests)} requests, "
        f"{len(through.received)} responses, {mapped} paths and "
        f"{sum(PREFIX in body for *_, body in through.requests)} bodies mapped; "
        + ("no difference" if not found else f"{len(found)} differences")
    )
    for line in found[:20]:
        print("  " + line[:300])
    return not found


def _commit(folder: Path) -> str:
    command = ["git", "-C", str(folder), "log", "-1", "--format=%h %cs"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _environment(sdk: Sdk, folder: Path) -> Path:
    python = CACHE / f"venv-{sdk.package}" / "bin" / "python"
    if not python.exists():
        print(f"setting up the environment of {sdk.name} (once)", flush=True)
        venv.create(python.parent.parent, with_pip=True)
        install = [str(python), "-m", "pip", "install", "-q"]
        if subprocess.run([*install, "-e", f"{folder}[aiohttp]", *TOOLS], check=False).returncode:
            sys.exit(f"the packages of {sdk.name} cannot be installed; is this machine online?")
    return python


def _run(sdk: Sdk, folder: Path, python: Path, *, is_mapped: bool) -> Seen:
    port, work = unused_port(), CACHE / "work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    url = f"http://127.0.0.1:{port}"
    if not is_mapped:
        return _run_tests(sdk, folder, python, port, url + sdk.base)
    rules = f"""
rules:
  - name: suite
    match: {{host: {sdk.host}}}
    upstream: {url}
    auth: {{scheme: keep}}
    models: {{map: {{"*": "{PREFIX}{{1}}"}}}}
"""
    proxy = Mitmdump(work, rules=rules, modes=(f"reverse:https://{sdk.host}",))
    try:
        return _run_tests(sdk, folder, python, port, proxy.url + sdk.base)
    finally:
        proxy.kill()


def _run_tests(sdk: Sdk, folder: Path, python: Path, port: int, url: str) -> Seen:
    log, results = CACHE / "work" / "seen.json", CACHE / "work" / "results.xml"
    command = [
        str(python), "-m", "pytest", "-q", "-p", "sdk_mock", "-o", "addopts=", "-p", "no:cacheprovider", "--tb=short",
        f"--junitxml={results}", "tests/api_resources",
    ]  # fmt: skip
    env = {
        "PATH": os.environ["PATH"], "HOME": str(CACHE / "work"), "PYTHONPATH": str(HERE), "TEST_API_BASE_URL": url,
        "SDK_MOCK_PACKAGE": sdk.package, "SDK_MOCK_PORT": str(port), "SDK_MOCK_LOG": str(log), "NO_PROXY": "*",
    }  # fmt: skip
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1) or not log.exists():
        sys.exit(f"the suite of {sdk.name} did not run:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
    seen = json.loads(log.read_text())
    return Seen(_outcomes(results), seen["requests"], seen["received"])


def _outcomes(results: Path) -> dict[str, str]:
    def outcome(case: ET.Element) -> str:
        return next((each.tag for each in case if each.tag in ("failure", "error", "skipped")), "passed")

    return {
        f"{case.get('classname')}::{case.get('name')}": outcome(case)
        for case in ET.parse(results).iter("testcase")
    }


def _differences(direct: Seen, through: Seen) -> list[str]:
    """Describe each test, request and response that differs by more than a mapped name."""
    found = [
        f"{name}: {direct.outcomes.get(name)} without, {through.outcomes.get(name)} with the gateway"
        for name in sorted({*direct.outcomes, *through.outcomes})
        if direct.outcomes.get(name) != through.outcomes.get(name)
    ]
    found += _unequal(
        "request", direct.requests, [[part.replace(PREFIX, "") for part in each] for each in through.requests]
    )
    return found + _unequal("response", direct.received, through.received)


def _unequal(what: str, without: list[Any], with_gateway: list[Any]) -> list[str]:
    if len(without) != len(with_gateway):
        return [f"{len(without)} {what}s without, {len(with_gateway)} with the gateway"]
    pairs = enumerate(zip(without, with_gateway, strict=True), start=1)
    return [
        f"{what} {number}: {one} without, {other} with the gateway"
        for number, (one, other) in pairs
        if one != other
    ]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
