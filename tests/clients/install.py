"""Install the programs of the matrix below `.cache/clients`; what cannot be installed is reported as not tried."""

from __future__ import annotations

import subprocess
import sys
import venv

from clients.test_matrix import ALL, CACHE

# The plain programs for Node need one that reads NODE_USE_ENV_PROXY.
NODE = "node@24"


def main() -> None:
    """Install each package by itself, so that one that is missing keeps no other back."""
    npm = ["npm", "install", "--no-fund", "--no-audit", "--loglevel=error", "--prefix"]
    _run([*npm, str(CACHE / "node"), NODE])
    for package in sorted({package for program in ALL for package in program.npm}):
        _run([*npm, str(CACHE / "npm"), package])
    if not (CACHE / "py").exists():
        venv.create(CACHE / "py", with_pip=True)
    for package in sorted({package for program in ALL for package in program.pypi}):
        _run([str(CACHE / "py" / "bin" / "python"), "-m", "pip", "install", "-q", package])


def _run(command: list[str]) -> None:
    print(f"installing {command[-1]}", flush=True)
    try:
        failed = subprocess.run(command, check=False).returncode != 0
    except OSError:
        failed = True
    if failed:
        print(f"{command[-1]} could not be installed: its programs will not be tried", file=sys.stderr)


if __name__ == "__main__":
    main()
