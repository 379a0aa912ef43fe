"""The Makefile's memory: `make matrix` does not repeat a run of the whole suite that has passed."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from support.constants import ROOT

# Stands for Python: prints the versions that Make asks for, and logs each run of the suite.
PYTHON = """#!/bin/sh
case "$*" in
  *pytest*) echo "$0 $*" >> .cache/runs; [ ! -e .cache/fails ] ;;
  *) echo "mitmproxy 12.3.1 on Python 3.13.1" ;;
esac
"""


class Checkout:
    """A copy of the Makefile beside one source file, with environments that only log their calls."""

    def __init__(self, root: Path) -> None:
        self.root = root
        shutil.copy(ROOT / "Makefile", root)
        shutil.copy(ROOT / ".gitignore", root)
        (root / "pyproject.toml").touch()
        (root / "source.py").touch()
        subprocess.run(["git", "init", "-q"], cwd=root, check=True)
        for environment in (".venv", ".venv-3.11", ".venv-3.13"):
            (root / environment / "bin").mkdir(parents=True)
            (root / environment / "bin" / "python").write_text(PYTHON)
            (root / environment / "bin" / "python").chmod(0o700)
            for stamp in ("runtime", "dev"):
                (root / environment / stamp).touch()
        version = (root / ".venv-3.11" / "bin" / "python").read_text().replace("12.3.1", "11.0.2")
        (root / ".venv-3.11" / "bin" / "python").write_text(version)
        npm = root / ".cache" / "bin" / "npm"
        npm.parent.mkdir(parents=True)
        npm.write_text("#!/bin/sh\nexit 1\n")
        npm.chmod(0o700)

    def make(self, *arguments: str) -> str:
        """Run make where npm installs nothing, and return its output."""
        environment = {"PATH": f"{self.root / '.cache' / 'bin'}:{os.environ['PATH']}"}
        done = subprocess.run(
            ["make", *arguments], cwd=self.root, env=environment, capture_output=True, text=True, check=False
        )
        return done.stdout + done.stderr

    @property
    def runs(self) -> list[str]:
        """The environments in which the suite has run."""
        log = self.root / ".cache" / "runs"
        return [Path(line.split()[0]).parts[0] for line in log.read_text().splitlines()]


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def test_the_matrix_from_scratch_runs_the_suite_on_both_versions(checkout: Checkout) -> None:
    checkout.make("matrix")
    assert checkout.runs == [".venv-3.11", ".venv-3.13"]


def test_the_matrix_does_not_repeat_a_whole_run_that_has_passed(checkout: Checkout) -> None:
    checkout.make("test", "ARGS=--reruns 1 -rR")
    assert "the whole suite has passed there" in checkout.make("matrix", "ARGS=--reruns 1 -rR")
    assert checkout.runs == [".venv", ".venv-3.11"]
    checkout.make("matrix-3.13", "ARGS=-k stream")
    assert checkout.runs[2:] == [".venv-3.13"]


def test_the_matrix_repeats_a_run_after_a_change_of_any_file(checkout: Checkout) -> None:
    checkout.make("test")
    (checkout.root / "new.py").touch()
    checkout.make("matrix-3.13")
    (checkout.root / "source.py").write_text("changed")
    checkout.make("matrix-3.13")
    assert checkout.runs == [".venv", ".venv-3.13", ".venv-3.13"]


@pytest.mark.parametrize("options", [["ARGS=-k stream"], ["PYTEST_ADDOPTS=--lf"], ["ARGS=tests/unit"]])
def test_the_matrix_repeats_a_run_of_a_part(checkout: Checkout, options: list[str]) -> None:
    checkout.make("test", *options)
    checkout.make("matrix-3.13")
    assert checkout.runs == [".venv", ".venv-3.13"]


def test_the_matrix_repeats_a_run_that_has_failed(checkout: Checkout) -> None:
    (checkout.root / ".cache" / "fails").touch()
    assert "Error" in checkout.make("test")
    assert "Error" in checkout.make("matrix-3.13")
    assert checkout.runs == [".venv", ".venv-3.13"]
