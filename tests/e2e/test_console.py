"""mitmproxy's console in a real terminal: both views, the comment, a replay, `gateway.explain @focus`."""

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from support.answers import Stream, message_events
from support.constants import CK, ENV, GATEWAY, GW, HEADERS
from support.fixture_types import StartRecorder, StartTerminal
from support.http_client import Wire
from support.one_rule import one_rule
from support.program import TIMEOUT_S
from support.terminal import Terminal

pytestmark = pytest.mark.e2e

EDITS = "body: {remove: [context_management, metadata]}\nmodels: {map: {claude-opus-*: gw-large}}"
BODY = b'{"model":"claude-opus-4","context_management":{},"messages":[{"role":"user","content":"say \\u001b[31mred"}]}'


@pytest.fixture
def console(tmp_path: Path, terminal: StartTerminal) -> Callable[..., Terminal]:
    """Start mitmproxy's console with the gateway."""
    file = tmp_path / "rules.yaml"
    command = [Path(sys.executable).with_name("mitmproxy"), "-p", "0", "-s", GATEWAY]
    command += ["--set", f"confdir={tmp_path / 'confdir'}", "--set", f"gateway_rules={file}"]
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "LANG": "C.UTF-8", **ENV}

    def start(*args: str, rules: str) -> Terminal:
        file.write_text(rules, encoding="utf-8")
        file.chmod(0o600)  # or the gateway refuses it, where the umask lets others write
        return terminal(tmp_path, [*command, *args], env)

    return start


def port_of(console: Terminal) -> int:
    """Return the port that the console shows when it listens."""
    return int(console.wait_for(r"\[127\.0\.0\.1:(\d+)\]", TIMEOUT_S)[1])


REPORT = (
    r"forwarded: POST http://127\.0\.0\.1:\d+/base/v1/messages\?beta=true",
    r"  remove context_management\s",
    r"  remove metadata: no effect here",
    r"  - x-api-key: \*\*\*\*cdef",
    r"  \+ Authorization: Bearer \*\*\*\*3210",
)


def run(terminal: Terminal, command: str) -> None:
    """Run a command of mitmproxy's."""
    terminal.type(":")
    terminal.wait_for(r"(?m)^:")
    terminal.type(command)
    terminal.press("Enter")


def test_a_call_is_read_replayed_and_explained(
    recorder: StartRecorder, console: Callable[..., Terminal]
) -> None:
    upstream = recorder(Stream(message_events("gw-large"), gated=False))
    terminal = console(
        "--mode", "reverse:https://api.anthropic.com", rules=one_rule(f"{upstream.url}/base", EDITS)
    )
    with Wire(port_of(terminal)) as client:
        client.request("POST", "/v1/messages?beta=true", HEADERS, BODY)
    terminal.wait_for("POST.*✅")
    terminal.press("Enter")
    terminal.wait_for(r"user:\s+say ␛\[31mred")
    terminal.press("Right")
    terminal.wait_for(r"LLM.*\s+model: claude-opus-4\s+assistant:\s+hello there\s+stop: end_turn")
    terminal.press("Right")
    terminal.wait_for(r"Comment: opus-4 11→7 → gw-large, gw: x-api-key → bearer, 200, ")
    terminal.press("Right")
    terminal.wait_for("say ␛")
    terminal.press("m")
    terminal.press(terminal.wait_for(r"(\w)\) gateway ")[1])
    for line in REPORT:
        terminal.wait_for(line)
    shown = list(terminal.seen)
    terminal.press("r")
    again = upstream.wait_for_request(count=2)
    first = upstream.requests[0]
    assert (again.target, again.body) == (first.target, first.body)
    assert (again.header("authorization"), again.header("x-api-key")) == (f"Bearer {GW}", None)
    # Until the upstream answers, the request stands there as it is sent.
    terminal.wait_for("↺✅")
    terminal.seen.clear()
    terminal.press("q")
    terminal.wait_for(">>.*POST.*↺✅")
    run(terminal, "gateway.explain @focus")
    terminal.wait_for(r"rule +gw \(number 1 of 1\)")
    terminal.wait_for(r"auth +x-api-key → bearer \(credential gw\)")
    terminal.wait_for(r"model +claude-opus-4 → gw-large")
    terminal.press("q")
    run(terminal, "gateway.stats")
    # The whole line fits the box.
    terminal.wait_for(r"(?m)│ *rule +model +requests +errors +in +out .*total p95 *│$")
    terminal.wait_for(r"(?m)│ *total +2 +0 +22 +14 .* m?s *│$")
    terminal.press("q")
    terminal.press("q")
    terminal.wait_for("Quit")
    terminal.press("y")
    assert terminal.wait_for_exit() == 0
    shown += terminal.seen
    assert not any(secret in screen for secret in (CK, GW) for screen in shown)


def test_a_start_that_is_refused_leaves_the_reason_on_the_screen(console: Callable[..., Terminal]) -> None:
    with pytest.raises(TimeoutError, match=re.escape("(exit status 1)")) as ended:
        port_of(console(rules="rules: [{match: {host: h.test}, upsteam: https://h.test}]"))
    assert 'unknown key "upsteam"' in str(ended.value)
