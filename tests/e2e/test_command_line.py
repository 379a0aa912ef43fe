"""Command lines as people type them: right ones work, wrong ones are one or two lines with the fix."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

from support.launcher import Command

RULES = "rules: [{match: {host: api.anthropic.com}, upstream: https://gw.test}]\n"
BAD = "rules: [{match: {host: api.anthropic.com}, upsteam: https://gw.test}]\n"


@pytest.fixture
def command(tmp_path: Path) -> Command:
    return Command(tmp_path / "home")


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (["chek"], 'unknown command "chek" (did you mean "check"?)'),
        (["launch"], 'unknown command "launch"; expected one of run, serve, check,'),
        ([], "a command is missing; expected one of run, serve,"),
        (["run", "--intercpt", "claude"], 'unknown option "--intercpt" (did you mean "--intercept"?)'),
        (["run", "--int", "claude"], 'unknown option "--int"'),
        (["serve", "--prot", "8081"], 'unknown option "--prot" (did you mean "--port"?)'),
        (["serve", "--port", "x"], "argument --port: invalid int value: 'x'"),
        (["run"], "the client is missing; expected one as in `mitm-gateway run claude`"),
        (["run", "--"], "the client is missing"),
        (["run", "--set", "gateway_lgo=x", "true"], 'unknown option "gateway_lgo" (did you mean "gateway_log"?)'),
        (["run", "--set", "gateway_rules=x", "true"], "--set gateway_rules: expected --rules FILE instead"),
        (["serve", "--set", "gateway_keep=x"], '--set "gateway_keep": '),
        (["serve", "--set", "gateway_log"], '--set "gateway_log" has no value; expected NAME=VALUE'),
        (["env", "--shell", "bsh"], 'unknown value "bsh" (did you mean "bash"?)'),
        (["env", "--client", "codx"], 'unknown client "codx" (did you mean "codex"?)'),
        (["init", "openruter"], 'unknown preset (did you mean "openrouter"?)'),
        (["explain", "GET"], "the following arguments are required: URL"),
        (["export", "nginx"], 'unknown value "nginx"; expected one of envoy'),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_a_wrong_command_line_is_one_line_with_the_fix_and_status_2(
    command: Command, line: list[str], told: str
) -> None:
    done = command.run(*line)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(f"mitm-gateway: {told}"), done.stderr
    assert len(done.stderr.splitlines()) <= 2


@pytest.mark.e2e
@pytest.mark.parametrize(
    "line",
    [
        ["run", "echo", "-n", "--intercept", "--", "x"],
        ["run", "--", "echo", "-n", "--intercept", "--", "x"],
        ["run", "--log", "file", "echo", "-n", "--intercept", "--", "x"],
    ],
)
def test_run_passes_everything_after_the_client_on(command: Command, line: list[str]) -> None:
    command.write_rules(RULES)
    done = command.run(*line)
    assert (done.returncode, done.stdout) == (0, "--intercept -- x"), done


@pytest.mark.e2e
def test_run_and_serve_take_options_of_the_gateway(command: Command) -> None:
    command.write_rules(RULES)
    done = command.run("run", "--set", f"gateway_log={command.home}/log", "--set", "gateway_keep=5", "true")
    assert done.returncode == 0, done
    assert (command.home / "log").exists()


# ---- check ----


def test_check_takes_several_files_and_standard_input(command: Command) -> None:
    good, bad = command.home / "good.yaml", command.home / "bad.yaml"
    good.write_text(RULES)
    bad.write_text(BAD)
    done = command.run("check", good, bad, "-", text=BAD)
    assert done.returncode == 1
    assert done.stdout == f"{good}: 1 rule, no problems\n"
    assert f'{bad}:1:44: unknown key "upsteam" in rule "rule 1" (did you mean "upstream"?)' in done.stderr
    assert '<stdin>:1:44: unknown key "upsteam"' in done.stderr
    assert command.run("check", good, "-", text=RULES).returncode == 0


def test_check_and_explain_warn_about_a_credential_whose_variable_is_not_set(command: Command) -> None:
    command.write_rules(
        "credentials: {gw: {env: GW_KEY}}\n"
        + RULES.replace("}]", ", auth: {scheme: bearer, credential: gw}}]")
    )
    for line in (["check"], ["explain", "GET", "https://api.anthropic.com/"]):
        done = command.run(*line)
        assert done.returncode == 0, done
        assert 'warning: credential "gw" reads GW_KEY, which is not set here' in done.stderr
        assert "warning" not in command.run(*line, env={"GW_KEY": "x"}).stderr


# ---- output ----


def test_a_closed_pipe_prints_no_traceback(command: Command) -> None:
    shell = shlex.join(command.argv("schema"))
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {shell} | true"],
        env=command.environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""


def test_help_has_a_description_an_example_and_defaults(command: Command) -> None:
    for name in ("run", "serve", "env", "check"):
        text = command.run(name, "--help").stdout
        assert "examples:" in text
        assert f"mitm-gateway {name}" in text
    assert "every other\nhost is tunnelled" in command.run("run", "--help").stdout
    assert "(default 8080)" in command.run("serve", "--help").stdout
