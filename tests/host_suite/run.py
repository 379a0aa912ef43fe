"""Run mitmproxy's own tests, of the installed version, with and without the gateway's patches, and compare.

`make host-suite` prints the tests whose outcome the patches change, and ends with 1 if one of them has no reason in
`intended.py`. HOST_SUITE_SOURCE names another place to clone mitmproxy from.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from mitmproxy import version

from host_suite.intended import patch_of
from host_suite.plugin import APPLIED, OUTCOMES
from mitm_gateway.patches.table import PATCHES
from support.clones import cloned
from support.constants import ADDON, ROOT, TESTS

_SOURCE = os.environ.get("HOST_SUITE_SOURCE", "https://github.com/mitmproxy/mitmproxy")
_TIMEOUT_S = 120
_ALL = tuple(patch.name for patch in PATCHES)
# Variables that would change how the tests run.
_UNSET = (
    "PYTEST_ADDOPTS", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy",
)  # fmt: skip

# mitmproxy's own configuration, as far as outcomes depend on it; newer versions of pytest refuse its file.
_PYTEST_INI = """[pytest]
asyncio_mode = auto
asyncio_default_fixture_loop_scope = function
filterwarnings =
    error::RuntimeWarning
    error::pytest.PytestUnraisableExceptionWarning
"""

Outcomes = dict[str, str]


def fetch() -> Path:
    """Return the folder with the tests of the installed mitmproxy; download it once."""
    tag = f"v{version.VERSION}"
    folder = ROOT / ".cache" / "host-suite" / tag
    cloned(_SOURCE, folder, "--branch", tag, "-c", "advice.detachedHead=false")
    # The installed package is under test, not that of the clone.
    shutil.rmtree(folder / "mitmproxy", ignore_errors=True)
    (folder / "pyproject.toml").unlink(missing_ok=True)
    (folder / "pytest.ini").write_text(_PYTEST_INI)
    return folder


def run(folder: Path, patches: Iterable[str], tests: Iterable[str], *, workers: int = 0) -> Outcomes:
    """Return the outcome of each test under the named patches."""
    with tempfile.TemporaryDirectory() as scratch:
        outcomes = Path(scratch) / "outcomes.json"
        env = {name: value for name, value in os.environ.items() if name not in _UNSET}
        env |= {"PYTHONPATH": f"{ADDON}:{TESTS}", "PYTHONSAFEPATH": "1", "HOME": scratch}
        env |= {OUTCOMES: str(outcomes), APPLIED: " ".join(patches)}
        options = ["-p", "host_suite.plugin", "-p", "no:cacheprovider", "-p", "no:rerunfailures"]
        options += [f"--timeout={_TIMEOUT_S}", "-q", "--color=no", "--tb=short", "-n", str(workers)]
        command = [sys.executable, "-m", "pytest", *options, *tests]
        report = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)
        if not outcomes.is_file():
            sys.exit(f"pytest did not run:\n{report.stdout[-3000:]}\n{report.stderr[-3000:]}")
        found: Outcomes = json.loads(outcomes.read_text())
        return found


def compare(folder: Path, stock: Outcomes, patched: Outcomes) -> list[str]:
    """Return a line for each test whose outcome the patches change without a listed reason."""
    changed = sorted(name for name in {*stock, *patched} if stock.get(name) != patched.get(name))
    by_patch: dict[str | None, list[str]] = {}
    for name in changed:
        by_patch.setdefault(patch_of(name), []).append(name)
    unexplained = []
    for patch, names in by_patch.items():
        # One after the other, because some of these tests depend on time. Without the patch that is the reason, a test
        # must have its first outcome again.
        if patch is None:
            stock |= run(folder, [], names)
        else:
            print(f"{len(names)} tests expect the behaviour that {patch} changes")
        again = run(folder, [name for name in _ALL if name != patch], names)
        unexplained += [name for name in names if stock.get(name) != again.get(name)]
    return [f"{stock.get(name)} → {patched.get(name)}: {name}" for name in unexplained]


def main() -> int:
    """Print the outcomes of both runs and every unexplained difference; return 1 if there is one."""
    folder = fetch()
    tests = sys.argv[1:] or ["test"]
    outcomes = []
    for title, patches in (("without", ()), ("with", _ALL)):
        outcomes.append(run(folder, patches, tests, workers=2))
        counts = Counter(outcomes[-1].values())
        figures = ", ".join(f"{count:,} {outcome}" for outcome, count in sorted(counts.items()))
        print(f"mitmproxy {version.VERSION}, its own tests {title} the patches: {figures}")
    unexplained = compare(folder, *outcomes)
    print(*unexplained, sep="\n")
    print(f"{len(unexplained)} tests have another outcome with the patches, without a listed reason")
    return 1 if unexplained else 0


if __name__ == "__main__":
    sys.exit(main())
