"""Patches that do not fit the installed mitmproxy, in a real mitmdump."""

from collections.abc import Callable
from pathlib import Path

import pytest
from mitmproxy import version

from support.answers import Reply
from support.http_client import Wire
from support.mitmdump import Mitmdump
from support.recorder import Recorder

pytestmark = pytest.mark.e2e

RULES = "rules: [{name: r, match: {host: 127.0.0.1}, auth: {scheme: keep}}]"
CHANGED = """
from mitmproxy import http
from mitmproxy.proxy.layers.http import HttpStream
def state_consume_request_body(self, event, more=None): ...
state_consume_request_body.__qualname__ = "HttpStream.state_consume_request_body"
{change}
"""


def test_a_safety_patch_that_does_not_fit_ends_the_program_with_the_reason(
    mitmdump: Callable[..., Mitmdump], tmp_path: Path
) -> None:
    script = tmp_path / "changed.py"
    change = "HttpStream.state_consume_request_body = state_consume_request_body"
    script.write_text(CHANGED.format(change=change))
    proxy = mitmdump("-s", str(script), rules=RULES, wait=False)
    assert proxy.wait_for_exit() == 1
    part = "HttpStream.state_consume_request_body"
    assert f"patch body-limit not applied: {part} changed in mitmproxy {version.VERSION}" in proxy.output()
    assert "Traceback" not in proxy.output()
    assert " in force" not in proxy.output()


def test_a_speed_patch_that_does_not_fit_is_one_log_line(
    recorder: Callable[..., Recorder], mitmdump: Callable[..., Mitmdump], tmp_path: Path
) -> None:
    upstream = recorder(Reply(200, b"{}"))
    script = tmp_path / "changed.py"
    change = "values = http.Headers.get_all\n"
    change += "http.Headers.get_all = lambda self, name, more=None: values(self, name)"
    script.write_text(CHANGED.format(change=change))
    proxy = mitmdump("-s", str(script), rules=RULES, modes=[f"reverse:{upstream.url}"])
    proxy.wait_for_output("patch plain-headers not applied: .* changed in mitmproxy")
    with Wire(proxy.port) as wire:
        assert wire.request("GET", "/", [("Host", "localhost")]).status == 200
    assert proxy.output().count("not applied") == 1
