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


@pytest.mark.parametrize("name", COMMANDS)
def test_the_sources_are_tried_in_order(command: Command, name: str) -> None:
    named = command.home / "named.yaml"
    settings = command.home / ".claude" / "settings.json"
    settings.parent.mkdir()
    configured = command.write_rules(RULES)

    def source(*args: str | Path, env: dict[str, str] | None = None) -> str:
        done = command.run(*COMMANDS[name][:1], *args, *COMMANDS[name][1:], env=env)
        assert done.returncode == 0, done
        return done.stdout + done.stderr

    assert str(configured) in source()
    settings.write_text(json.dumps(DESKTOP))
    assert str(settings) in source()
    assert "ANTHROPIC_AUTH_MODE" in source(env=FORM)
    named.write_text(RULES)
    named.chmod(0o600)
    assert str(named) in source("--rules", named, env=FORM)


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
