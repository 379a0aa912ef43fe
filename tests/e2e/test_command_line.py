"""Command lines as people type them: right ones work, wrong ones are one or two lines with the fix."""

import shlex
import subprocess

import pytest

from support.command import Command

RULES = "rules: [{match: {host: api.anthropic.com}, upstream: https://gw.test}]\n"
BAD = "rules: [{match: {host: api.anthropic.com}, upsteam: https://gw.test}]\n"


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
    done = command.run("check", good, "-", text=RULES)
    assert done.returncode == 0
    assert done.stdout == f"{good}: 1 rule, no problems\n<stdin>: 1 rule, no problems\n"


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


@pytest.mark.parametrize(
    ("source", "warning"),
    [("{file: ~/corp.key}", "reads ~/corp.key, which does not exist here"),
     ("{command: [corp-sso, token]}", "runs corp-sso, which is not installed here")],
)  # fmt: skip
def test_check_warns_about_a_missing_file_or_helper(command: Command, source: str, warning: str) -> None:
    rules = RULES.replace("}]", ", auth: {scheme: bearer, credential: gw}}]")
    done = command.run("check", "-", text=f"credentials: {{gw: {source}}}\n{rules}")
    assert done.returncode == 0, done
    assert f'warning: credential "gw" {warning}' in done.stderr


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
