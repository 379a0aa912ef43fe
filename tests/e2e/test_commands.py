"""`init`, `presets`, `env` and `completion`, as a shell sees them."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from mitm_gateway.cli.env import lines, shell_of
from mitm_gateway.clients.environment import Changes
from mitm_gateway.rules import presets
from support.command import Command
from support.fixture_types import StartMitmdump
from support.http_client import Wire

RULES = """
credentials: {gw: {env: GW_KEY}}
rules:
  - match: {host: api.anthropic.com, path: /v1/**}
    upstream: https://gw.example.com
    auth: {scheme: bearer, credential: gw}
"""


# ---- init, presets ----


def test_init_writes_a_file_that_check_accepts(command: Command) -> None:
    done = command.run("init", "github-copilot")
    file = command.config / "rules.yaml"
    assert done.returncode == 0, done
    assert done.stdout.splitlines()[0].startswith(f"{file}: written")
    assert file.stat().st_mode & 0o777 == 0o600
    assert "UNVERIFIED" in file.read_text().upper()
    assert command.run("check").returncode == 0


def test_init_overwrites_a_file_only_with_force(command: Command) -> None:
    file = command.write_rules("mine\n")
    refused = command.run("init", "anthropic")
    assert refused.returncode == 1
    assert "the file exists; --force overwrites it" in refused.stderr
    assert file.read_text() == "mine\n"
    assert command.run("init", "anthropic", "--force").returncode == 0
    assert "preset: anthropic" in file.read_text()
    assert list(command.config.iterdir()) == [file]


def test_init_suggests_the_nearest_preset(command: Command) -> None:
    done = command.run("init", "openruter", "--rules", command.home / "r.yaml")
    assert done.returncode == 2
    assert 'did you mean "openrouter"?' in done.stderr
    assert not (command.home / "r.yaml").exists()


def test_presets_are_listed_with_date_source_and_what_is_unverified(command: Command) -> None:
    done = command.run("presets")
    for name in presets.names():
        assert f"\n{name:<15} " in f"\n{done.stdout}"
    assert len(re.findall(r"\(\d{4}-\d\d-\d\d\)\n", done.stdout)) == len(presets.names())
    assert done.stdout.count("    source:") >= len(presets.names())
    assert "\n    UNVERIFIED: " in done.stdout
    one = command.run("presets", "zai")
    assert "upstream: https://api.z.ai/api/anthropic" in one.stdout


# ---- env ----


@pytest.mark.parametrize("shell", ["bash", "fish", "pwsh"])
def test_env_lines_work_in_their_shell(command: Command, shell: str) -> None:
    found = shutil.which(shell)
    if found is None:
        pytest.skip(f"{shell} is not installed")
    command.write_rules(RULES)
    form = "powershell" if shell == "pwsh" else shell
    printed = command.run("env", "--shell", form, "--port", "8765", env={"GW_KEY": "k"}).stdout
    environment = {**command.environment(), "GW_KEY": "k", "ANTHROPIC_API_KEY": "other"}
    done = subprocess.run(
        [found, "-c", f"{printed}\nenv"], env=environment, capture_output=True, text=True, check=True
    )
    held = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    assert held["ANTHROPIC_BASE_URL"] == "http://127.0.0.1:8765"
    assert held["ANTHROPIC_AUTH_TOKEN"] == "placeholder"
    assert not {"ANTHROPIC_API_KEY", "GW_KEY"} & set(held)


def test_env_lines_follow_the_syntax_of_each_shell() -> None:
    changes = Changes({"A": "it's"}, ("B", "C"))
    assert lines(changes, "bash") == ["unset B C", "export A='it'\"'\"'s'"]
    for shell in ("bash", "fish", "powershell"):
        comment, *rest = lines(changes, shell, ["C", "D"])
        assert comment.startswith("# for the gateway only, as they hold its keys: C (start it")
        assert rest == lines(changes, shell)
    assert lines(changes, "fish") == ["set -e B C", "set -gx A 'it\\'s'"]
    assert lines(changes, "powershell") == [
        "Remove-Item -ErrorAction SilentlyContinue Env:B, Env:C",
        "$Env:A = 'it''s'",
    ]
    assert [shell_of(name) for name in ("/bin/zsh", "/usr/bin/fish", "/usr/bin/pwsh", "")] == [
        "bash", "fish", "powershell", "bash",
    ]  # fmt: skip


@pytest.mark.e2e
def test_env_prints_the_variables_for_an_intercepting_gateway(
    command: Command, mitmdump: StartMitmdump
) -> None:
    command.write_rules(RULES)
    before = command.run("env", "--intercept", env={"GW_KEY": "k"})
    assert before.returncode == 2
    assert "does not exist yet; start the gateway once" in before.stderr
    proxy = mitmdump(rules=RULES, env={"GW_KEY": "k"})
    proxy.wait_for_output("rules? in force")
    with Wire(proxy.port) as client:  # the CA is there once something has been asked
        client.request("GET", "http://127.0.0.1:9/", [("Host", "127.0.0.1:9")])
    ca = command.home / ".mitmproxy" / "mitmproxy-ca-cert.pem"
    ca.parent.mkdir()
    shutil.copy(proxy.ca_cert, ca)
    printed = command.run("env", "--intercept", "--shell", "bash", env={"GW_KEY": "k"}).stdout
    bundle = command.config / "ca-bundle.pem"
    for name in ("NODE_EXTRA_CA_CERTS", "SSL_CERT_FILE", "GIT_SSL_CAINFO"):
        assert f"export {name}={bundle}" in printed
    assert "export NO_PROXY=127.0.0.1,localhost,::1" in printed
    assert ca.read_text().strip() in bundle.read_text()


# ---- completion ----


def completed(command: Command, words: list[str]) -> list[str]:
    """Return bash's completions of the last word."""
    script = command.run("completion", "bash").stdout
    line = " ".join(f"'{word}'" for word in words)
    show = "printf '%s\\n' \"${COMPREPLY[@]}\""
    code = f"{script}\nCOMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; _mitm_gateway\n{show}"
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True, cwd=command.home)
    assert done.stderr == ""
    return done.stdout.split()


def test_bash_completes_commands_options_and_presets(command: Command) -> None:
    assert completed(command, ["mitm-gateway", "pre"]) == ["presets"]
    assert completed(command, ["mitm-gateway", "init", "bed"]) == ["bedrock", "bedrock-mantle"]
    assert completed(command, ["mitm-gateway", "run", "--int"]) == ["--intercept"]
    assert completed(command, ["mitm-gateway", "token", "git"]) == ["github-copilot"]
    assert completed(command, ["mitm-gateway", "token", "oauth2", "--aud"]) == ["--audience"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_are_sound(command: Command, shell: str, tmp_path: Path) -> None:
    script = command.run("completion", shell).stdout
    assert "github-copilot" in script
    assert "doctor" in script
    if (found := shutil.which(shell)) is None:
        pytest.skip(f"{shell} is not installed")
    file = tmp_path / "script"
    file.write_text(script)
    subprocess.run([found, "-n", str(file)], check=True)
