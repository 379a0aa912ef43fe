"""Every command finds the same rules, and says which."""

import json
from pathlib import Path

import pytest

from support.command import Command

pytestmark = pytest.mark.e2e

RULES = """
rules:
  - match: {host: api.anthropic.com, path: /v1/**}
    upstream: https://gw.test
    auth: {scheme: bearer, credential: client}
"""
FORM = {
    "ANTHROPIC_AUTH_MODE": "bearer",
    "ANTHROPIC_BASE_URL": "https://gw.test",
    "ANTHROPIC_API_KEY": "gateway-key-0123456789",
}
DESKTOP = {
    "inferenceProvider": "gateway",
    "inferenceGatewayBaseUrl": "https://gw.test",
    "inferenceGatewayApiKey": "gateway-key-0123456789",
}
# Commands that end by themselves; `run` and `serve` are tried apart.
COMMANDS = {
    "check": ["check"],
    "explain": ["explain", "POST", "https://api.anthropic.com/v1/messages"],
    "env": ["env", "--shell", "bash"],
    "export": ["export", "envoy", "-o", "out"],
    "token-files": ["token-files", "--once", "folder"],
    "run": ["run", "true"],
}


def source(command: Command, name: str, *args: str | Path, env: dict[str, str] | None = None) -> str:
    """Return the output of a command, which names the source of its rules."""
    first, *more = COMMANDS[name]
    done = command.run(first, *args, *more, env=env)
    assert done.returncode == 0, done
    return done.stdout + done.stderr


def write_settings(command: Command) -> Path:
    """Write Claude Code's settings with Desktop's keys."""
    settings = command.home / ".claude" / "settings.json"
    settings.parent.mkdir()
    settings.write_text(json.dumps(DESKTOP))
    return settings


def test_the_sources_are_tried_in_order(command: Command) -> None:
    named, configured = command.home / "named.yaml", command.write_rules(RULES)
    assert str(configured) in source(command, "check")
    assert str(write_settings(command)) in source(command, "check")
    assert "ANTHROPIC_AUTH_MODE" in source(command, "check", env=FORM)
    named.write_text(RULES)
    named.chmod(0o600)
    assert str(named) in source(command, "check", "--rules", named, env=FORM)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_tries_the_same_sources(command: Command, name: str) -> None:
    command.write_rules(RULES)
    assert str(write_settings(command)) in source(command, name)
    assert "ANTHROPIC_AUTH_MODE" in source(command, name, env=FORM)


@pytest.mark.parametrize("name", ["run", "env"])
def test_without_rules_the_demo_gateway_answers_and_a_line_says_so(command: Command, name: str) -> None:
    done = command.run(*COMMANDS[name])
    assert done.returncode == 0, done
    assert "the embedded demo gateway answers\n    `mitm-gateway init PRESET` writes rules" in done.stderr


@pytest.mark.parametrize("name", ["check", "explain", "export", "token-files"])
def test_without_rules_the_other_commands_say_how_to_get_some(command: Command, name: str) -> None:
    done = command.run(*COMMANDS[name])
    assert done.returncode == 1
    assert "there is no such file; write one with `mitm-gateway init PRESET`" in done.stderr


def test_serve_takes_the_environment_form_and_says_how_to_point_a_client_at_it(command: Command) -> None:
    running = command.fork("serve", "--port", "18431", env=FORM)
    running.wait_for_output("env --port 18431")
    running.stop()
    seen = running.stderr
    assert "rules from ANTHROPIC_AUTH_MODE" in seen
    assert "http://127.0.0.1:18431 serves api.anthropic.com" in seen
    assert "ANTHROPIC_BASE_URL=http://127.0.0.1:18431 ANTHROPIC_AUTH_TOKEN=placeholder\n" in seen
    assert 'env --port 18431)"' in seen
