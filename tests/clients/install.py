"""Install the programs of the matrix below `.cache/clients`; those that cannot be installed are not tried."""

import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from shutil import which

from clients.test_matrix import ALL, CACHE, Program

# The plain programs for Node need one that reads NODE_USE_ENV_PROXY, and npm chooses versions that fit the Node it runs on.
NODE = "node@24"
NPM = ("npm", "install", "--no-fund", "--no-audit", "--loglevel=error", "--prefix")


def main() -> None:
    """Install each package alone, so that a missing one does not keep the others back."""
    _run([*NPM, str(CACHE / "node"), NODE])
    for package in _packages(program.npm for program in ALL):
        _run([*NPM, str(CACHE / "npm"), f"{package}@latest"])
    for version in sorted({program.python for program in ALL}):
        _install_for_python(version, [program for program in ALL if program.python == version])


def _install_for_python(version: str, programs: Sequence[Program]) -> None:
    python = programs[0].python_folder / "bin" / "python"
    if not python.exists() and (base := _interpreter(version)):
        _run([base, "-m", "venv", str(programs[0].python_folder)])
    for package in _packages(program.pypi for program in programs):
        _run([str(python), "-m", "pip", "install", "-q", "--upgrade", package])


def _interpreter(version: str) -> str | None:
    """Return a Python of this version, or the running one for no version; a name on PATH may be a shim."""
    if not version:
        return sys.executable
    found = [which(f"python{version}"), *map(str, _pyenv_versions(version))]
    return next((each for each in found if each and _works(each)), None)


def _pyenv_versions(version: str) -> Iterable[Path]:
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    return sorted(root.glob(f"versions/{version}.*/bin/python"))


def _works(python: str) -> bool:
    return subprocess.run([python, "-c", ""], capture_output=True, check=False).returncode == 0


def _packages(lists: Iterable[Sequence[str]]) -> list[str]:
    return sorted({package for each in lists for package in each})


def _run(command: list[str]) -> None:
    print(f"installing {command[-1]}", flush=True)
    path = os.pathsep.join([str(CACHE / "node" / "node_modules" / ".bin"), os.environ["PATH"]])
    try:
        failed = subprocess.run(command, check=False, env={**os.environ, "PATH": path}).returncode != 0
    except OSError:
        failed = True
    if failed:
        print(f"{command[-1]} could not be installed: its programs will not be tried", file=sys.stderr)


if __name__ == "__main__":
    main()
