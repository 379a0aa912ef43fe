"""The scripts for `mitmdump -s` under a mitmproxy that lacks the gateway's packages."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.constants import GATEWAY, PACKAGE

pytestmark = pytest.mark.e2e

INSTALLED = PACKAGE / "script" / "gateway.py"
TOOLS = {"mitmdump": [], "mitmweb": ["--no-web-open-browser", "--web-port", "0"]}


@pytest.mark.parametrize(
    ("script", "tool", "cure"),
    [(GATEWAY, "mitmdump", "`make run`"), (INSTALLED, "mitmweb", "`mitm-gateway serve`")],
    ids=["clone", "installed"],
)
def test_a_missing_package_is_one_line_that_names_the_cure(
    tmp_path: Path, script: Path, cure: str, tool: str
) -> None:
    missing = tmp_path / "missing" / "pydantic.py"
    missing.parent.mkdir()
    missing.write_text("raise ModuleNotFoundError(\"No module named 'pydantic'\")\n")
    argv = [str(Path(sys.executable).with_name(tool)), "-s", str(script), "--set", f"confdir={tmp_path}"]
    done = subprocess.run(
        [*argv, "--listen-host", "127.0.0.1", "--listen-port", "0", *TOOLS[tool]],
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PYTHONPATH": str(missing.parent)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    output = done.stdout + done.stderr
    told = [line for line in output.splitlines() if "pydantic" in line]
    assert done.returncode == 1
    assert len(told) == 1, output
    assert cure in told[0]
    assert "Traceback" not in output
