"""The process in which `serve` and `run` start mitmproxy."""

import subprocess
import sys

import pytest

from support.constants import PACKAGE

pytestmark = pytest.mark.e2e

SHOW = """
import atexit, gc, sys
sys.path.append(sys.argv[1])
from mitm_gateway.cli.mitmproxy_process import run_tool
web = "mitmproxy.tools.web.master"
atexit.register(lambda: print("web:", web in sys.modules, "garbage:", gc.isenabled(), gc.get_threshold()[0]))
run_tool(sys.argv[2], ["--version"])
"""


@pytest.mark.parametrize("tool", ["mitmdump", "mitmweb"])
def test_only_the_modules_of_the_tool_are_loaded_before_garbage_is_collected(tool: str) -> None:
    shown = subprocess.run(
        [sys.executable, "-c", SHOW, PACKAGE.parent, tool],
        capture_output=True,
        text=True,
        timeout=90,
        check=True,
    )
    assert f"web: {tool == 'mitmweb'} garbage: True 20000" in shown.stdout
