"""The scripts for `mitmdump -s` under a mitmproxy that lacks the gateway's packages."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from support.constants import GATEWAY, PACKAGE
from support.processes import Mitmdump

pytestmark = pytest.mark.e2e

INSTALLED = PACKAGE / "script" / "gateway.py"


@pytest.mark.parametrize(
    ("script", "cure"), [(GATEWAY, "`make run`"), (INSTALLED, "`mitm-gateway serve`")], ids=["clone", "installed"]
)  # fmt: skip
@pytest.mark.parametrize("web", [False, True], ids=["mitmdump", "mitmweb"])
def test_a_missing_package_is_one_line_that_names_the_cure(
    mitmdump: Callable[..., Mitmdump], tmp_path: Path, script: Path, cure: str, web: bool
) -> None:
    missing = tmp_path / "missing" / "pydantic.py"
    missing.parent.mkdir()
    missing.write_text("raise ModuleNotFoundError(\"No module named 'pydantic'\")\n")
    process = mitmdump(script=script, env={"PYTHONPATH": str(missing.parent)}, web=web, wait=False)
    assert process.wait_for_exit() == 1
    told = [line for line in process.output().splitlines() if "pydantic" in line]
    assert len(told) == 1, process.output()
    assert cure in told[0]
    assert "Traceback" not in process.output()
