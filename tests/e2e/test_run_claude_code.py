"""`mitm-gateway run` with Claude Code, for one prompt and in a terminal."""

import json
import re
from pathlib import Path

import pytest

from support.answers import claude_answers, insist_on_bearer, message_events
from support.aws import event_stream
from support.command import KEY, Command, environment_form
from support.fixture_types import StartRecorder, StartTerminal
from support.recorder import Recorder

pytestmark = pytest.mark.e2e


def desktop(upstream: Recorder, **keys: object) -> str:
    own = {"inferenceGatewayBaseUrl": upstream.url, "inferenceGatewayApiKey": KEY}
    return json.dumps({"inferenceProvider": "gateway", **own, **keys})


def test_claude_code_runs_with_the_environment_form(
    recorder: StartRecorder, command: Command, claude: Path
) -> None:
    upstream = recorder(insist_on_bearer(KEY))
    done = command.run("run", "--", claude, "-p", "hi", env=environment_form(upstream))
    assert (done.returncode, done.stdout) == (0, "hello there\n"), done
    assert upstream.wait_for_request("/v1/messages").values("authorization") == [f"Bearer {KEY}"]
    # One line describes the start; the gateway's own lines are in the log.
    assert done.stderr.splitlines() == [
        f"mitm-gateway: rules from ANTHROPIC_AUTH_MODE, log in {command.logs[0]}"
    ]
    assert "1 rule in force" in command.logs[0].read_text()
    assert KEY not in command.logs[0].read_text()


def test_a_providers_mode_needs_no_variables(recorder: StartRecorder, command: Command, claude: Path) -> None:
    upstream = recorder(lambda request: event_stream(message_events()))
    command.write_rules(
        f"""
credentials: {{key: {{env: BEDROCK_API_KEY}}}}
rules:
  - preset: bedrock
    upstream: {upstream.url}
    auth: {{credential: key}}
"""
    )
    done = command.run("run", "--", claude, "-p", "hi", env={"BEDROCK_API_KEY": KEY})
    assert (done.returncode, done.stdout) == (0, "hello there\n"), done
    asked = next(request for request in upstream.requests if request.method == "POST")
    assert asked.path.startswith("/model/us.anthropic.claude-")
    assert asked.values("authorization") == [f"Bearer {KEY}"]


def test_model_discovery_of_claude_code_is_answered_from_desktop_keys_in_its_settings(
    recorder: StartRecorder, command: Command, claude: Path
) -> None:
    upstream = recorder(insist_on_bearer(KEY))
    settings = command.home / ".claude" / "settings.json"
    settings.parent.mkdir()
    models = ["claude-mine-1", {"name": "claude-mine-2[1m]"}]
    settings.write_text(desktop(upstream, inferenceModels=models, theme="dark"))
    env = {"CLAUDE_CODE_ENABLE_GATEWAY_MODEL_DISCOVERY": "1"}
    done = command.run("run", "--", claude, "-p", "hi", env=env)
    assert (done.returncode, done.stdout) == (0, "hello there\n"), done
    log = command.logs[0].read_text()
    assert re.search(r"GET https://api\.anthropic\.com/v1/models\?limit=1000\n\s*<< 200", log), log
    assert {request.path for request in upstream.requests} == {"/v1/messages"}
    files = [each for each in command.home.rglob("*.json") if each.is_file() and each != settings]
    kept = "\n".join(each.read_text(errors="replace") for each in files)
    assert "claude-mine-1" in kept, "Claude Code keeps the list that it found"
    assert "claude-mine-2" in kept


def test_claude_code_works_in_a_terminal(
    recorder: StartRecorder, command: Command, claude: Path, terminal: StartTerminal
) -> None:
    upstream = recorder(insist_on_bearer(KEY, claude_answers))
    # The questions of a first start, answered beforehand.
    state = {
        "hasCompletedOnboarding": True,
        "theme": "dark",
        "projects": {
            str(command.home): {"hasTrustDialogAccepted": True, "hasCompletedProjectOnboarding": True}
        },
    }
    (command.home / ".claude.json").write_text(json.dumps(state))
    env = command.environment(environment_form(upstream))
    screen = terminal(command.home, command.argv("run", "--", claude), env)
    screen.wait_for(r"❯|>\s")
    screen.type("say hello")
    screen.wait_for(r"say\s+hello")
    screen.press("Enter")
    screen.wait_for(r"hello\s+there")
    assert upstream.wait_for_request("/v1/messages").json["stream"] is True
    screen.type("/exit")
    screen.wait_for(r"/exit")
    screen.press("Enter")
    assert screen.wait_for_exit() == 0
    assert not any("client connect" in shown for shown in screen.seen), "the gateway's log is in a file"
