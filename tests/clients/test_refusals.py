"""Real client programs where the gateway refuses: none tries again and again, and each shows the reason."""

import json
import subprocess
import time
from collections.abc import Callable
from typing import Any

import pytest

from clients.test_matrix import ALL, HOSTS, Home, Program, home, rules
from clients.upstream import TEXT, Upstream
from support.program import TIMEOUT_S
from support.recorder import Recorder

__all__ = ["home"]
pytestmark = [pytest.mark.e2e, pytest.mark.clients]

# Programs that try again after errors that pass by themselves.
NAMES = (
    "claude-code", "codex", "gemini-cli", "copilot-cli", "anthropic-python", "anthropic-js", "openai-python",
    "openai-js", "google-genai-python", "google-genai-js",
)  # fmt: skip
PROGRAMS = [program for program in ALL if program.name in NAMES]
# Gemini CLI asks a small model which model to ask. Codex ends at once on 400 only; it tries again after any other error.
REQUESTS = {"gemini-cli": 2, "codex": 6}
RULES = """
credentials: {{gw: {{env: UNSET_KEY}}}}
rules:
  - name: matrix
    match: {{host: "{host}"}}
    upstream: https://127.0.0.1:9
    auth: {{scheme: bearer, credential: gw}}
    models: {{default: gateway-model}}
    respond: {{head: true}}
"""


# Claude Code tries again ten times by default; the homes of tests tell it not to.
PATIENT = {"CLAUDE_CODE_MAX_RETRIES": "10"}


def run_logged(
    program: Program, home: Home
) -> tuple[subprocess.CompletedProcess[str], list[dict[str, Any]], float]:
    """Run a program. Return the run, the lines of the log, and the seconds that it took."""
    log, started = home.home / "log.jsonl", time.monotonic()
    argv = ["run", "--set", f"gateway_log={log}", "--", *program.argv]
    done = home.run(*argv, env={**(program.env or {}), **PATIENT})
    taken = time.monotonic() - started
    lines = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    return done, lines, taken


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_a_missing_credential_is_shown_and_not_tried_again(program: Program, home: Home) -> None:
    home.write_rules(RULES.format(host=HOSTS[program.api]))
    done, lines, taken = run_logged(program, home)
    refused = [line for line in lines if line["status"] == 424]
    assert 1 <= len(refused) <= REQUESTS.get(program.name, 1), lines
    assert "UNSET_KEY" in done.stdout + done.stderr
    assert taken < TIMEOUT_S / 2


@pytest.mark.parametrize("program", [each for each in ALL if each.name == "codex"], ids=["codex"])
def test_a_refused_websocket_takes_one_request_and_the_session_continues_over_http(
    program: Program, home: Home, recorder: Callable[..., Recorder]
) -> None:
    upstream = recorder(Upstream(None))
    home.write_rules(rules(upstream, program))
    done, lines, _ = run_logged(program, home)
    assert TEXT in done.stdout, done
    assert [line["status"] for line in lines if line["path"].endswith("/responses")] == [426, 200]
