"""Wrong command lines: one or two lines with the place and the fix, status 2, and nothing is written."""

import re
import shlex
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from mitm_gateway.cli import common, main, serve
from mitm_gateway.cli.command_line import build_parser
from support.constants import ROOT
from support.table import table

RULES = "rules: [{name: a, match: {host: a.test}, upstream: https://gw.test, auth: {scheme: none}}]\n"
COMMANDS = "expected one of run, serve, check,"
WRONG = (
    ("", "a command is missing; " + COMMANDS),
    ("''", 'unknown command ""; ' + COMMANDS),
    ("chek", 'unknown command "chek" (did you mean "check"?)'),
    ("start", 'unknown command "start" (did you mean "serve"?)'),
    ("launch claude", 'unknown command "launch" (did you mean "run"?)'),
    ("validate rules.yaml", 'unknown command "validate" (did you mean "check"?)'),
    ("help", 'unknown command "help" (did you mean "--help"?)'),
    ("version", 'unknown command "version" (did you mean "--version"?)'),
    ("xyzzy", 'unknown command "xyzzy"; ' + COMMANDS),
    ("--versoin", 'unknown option "--versoin" (did you mean "--version"?)'),
    ("--port 8080 serve", "unknown "),
    ("serve --prot 8081", 'unknown option "--prot" (did you mean "--port"?)'),
    ("serve --port x", "--port: not a port number; expected 1 to 65535"),
    ("serve --port 0", "--port: not a port number"),
    ("serve --port 99999", "--port: not a port number"),
    ("serve --host https://a.test/v1", "--host: not a host; expected one such as api.anthropic.com (did you mean"),
    ("serve --host a.test/v1", '--host: not a host; expected one such as api.anthropic.com (did you mean "a.test"?)'),
    ("env --host ''", "--host: not a host; expected one such as api.anthropic.com\n"),
    ("serve --port -1", "--port: not a port number"),
    ("serve --port", "--port has no value"),
    ("serve 8080", 'unknown argument "8080" (did you mean "--port 8080"?); arguments for mitmproxy follow "--"'),
    ("serve rules.yaml", 'unknown argument "rules.yaml"; arguments for mitmproxy follow "--"'),
    ("serve --rules", "--rules has no value"),
    ("serve --set server_replay=nowhere.mitm", "--set server_replay: nowhere.mitm: the file does not exist; expected"),
    ("run --set server_replay=rules.yaml true", "--set server_replay: rules.yaml: this is not a recording; expected"),
    ("serve --set gateway_log", '--set "gateway_log" has no value; expected NAME=VALUE'),
    ("serve --set =x", '--set "=x" has no name; expected NAME=VALUE'),
    ("serve --set gateway_keep=x", '--set "gateway_keep": '),
    ("serve --set listen_port=8081", "--set listen_port: expected `mitm-gateway serve --port PORT` instead"),
    ("run --set listen_host=0.0.0.0 true", "--set listen_host: expected `mitm-gateway serve --listen-host ADDRESS` in"),
    ("serve --set mode=socks5", "--set mode: expected --intercept, `mitm-gateway serve --host HOST`, or `mitmdump"),
    ("serve --set http2=x", '--set "http2": '),
    ("serve --rules rules.yaml --rules other.yaml", "--rules is given twice; expected one file"),
    ("serve --set confdir=rules.yaml/x", "rules.yaml/x: Not a directory; mitmproxy keeps its certificates there, or"),
    ("run --set confdir=rules.yaml true", "rules.yaml: File exists; mitmproxy keeps its certificates there, or"),
    ("run", "the client is missing; expected one as in `mitm-gateway run claude`"),
    ("run --", "the client is missing"),
    ("run --web", "the client is missing"),
    ("run --intercpt claude", 'unknown option "--intercpt" (did you mean "--intercept"?)'),
    ("run --int claude", 'unknown option "--int"'),
    ("run --client vercl-ai true", 'unknown client "vercl-ai" (did you mean "vercel-ai"?)'),
    ("run --client claude --rules rules.yaml true", "no rule covers a host that true calls: api.anthropic.com or 5 "),
    ("run --client codex --rules rules.yaml true", "no rule covers api.openai.com, which true calls; name it in"),
    ("run --set gateway_lgo=x true", 'unknown option "gateway_lgo" (did you mean "gateway_log"?)'),
    ("run --set gateway_rules=x true", "--set gateway_rules: expected --rules FILE instead"),
    ("check --fix rules.yaml", 'unknown option "--fix"; expected one of -h, --help, --rules'),
    ("env --shell bsh", 'unknown value "bsh" (did you mean "bash"?)'),
    ("env --client codx --rules rules.yaml", 'unknown client "codx" (did you mean "codex"?)'),
    ("init", "PRESET is missing; expected one of anthropic,"),
    ("init openruter", 'unknown preset "openruter" (did you mean "openrouter"?)'),
    ("init litellm extra", 'unknown argument "extra"'),
    ("presets nothing", 'unknown preset "nothing"; expected one of '),
    ("explain", "METHOD and URL are missing"),
    ("explain POST", "URL is missing"),
    ("explain https://a.test/v1", 'METHOD: "https://a.test/v1" is a URL; expected a method before it, such as POST'),
    ("explain GET ftp://a.test --rules rules.yaml", 'expected a URL such as "https://'),
    ("explain GET https://a.test:99999/ --rules rules.yaml", 'expected a URL such as "https://'),
    ("explain GET 'https://[::1/' --rules rules.yaml", 'expected a URL such as "https://'),
    ("explain GET https://a.test -H x-api-key --rules rules.yaml", "-H expects 'Name: value'"),
    ("export", "ENGINE is missing; expected one of envoy"),
    ("export nginx", 'unknown engine "nginx"; expected one of envoy'),
    ("completion", "SHELL is missing; expected one of bash,"),
    ("completion ksh", 'unknown shell "ksh" (did you mean "zsh"?)'),
    ("token", "a kind is missing; expected one of github-copilot, oauth2, google"),
    ("token github", 'unknown kind "github" (did you mean "github-copilot"?)'),
    ("token oauth2", "--token-url and --client-id are missing"),
    ("token-files", "DIR is missing"),
    ("schema extra", 'unknown argument "extra"'),
)  # fmt: skip


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory of a user without settings."""
    (tmp_path / "rules.yaml").write_text(RULES)
    (tmp_path / "rules.yaml").chmod(0o600)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    return tmp_path


def status_of(line: str) -> int:
    try:
        return main(shlex.split(line))
    except SystemExit as ended:
        return int(ended.code or 0)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@table(("line", "told"), WRONG)
def test_a_wrong_command_line_is_one_line_with_the_fix_and_status_2(
    line: str, told: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(folder)
    assert status_of(line) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    text = printed.err.removeprefix("mitm-gateway: rules from rules.yaml\n")
    assert text.startswith(f"mitm-gateway: {told}"), text
    assert len(text.splitlines()) <= 2
    assert contents(folder) == before


@pytest.mark.parametrize(
    ("line", "status", "told"),
    [
        ("check nowhere.yaml", 1, "nowhere.yaml: there is no such file; write one with `mitm-gateway init PRESET`"),
        ("check folder", 1, "folder: this is a folder; expected a file"),
        ("check binary", 1, "binary:1:2: the file is not UTF-8"),
        ("check huge", 1, "huge: the file is larger than 256 KiB"),
        ("check utf-16", 1, "utf-16:1:1: the file is not UTF-8 but UTF-16; save it as UTF-8"),
        ("check /dev/null", 1, "/dev/null: the file is not a regular file"),
        ("serve --rules nowhere.yaml", 1, "nowhere.yaml: there is no such file"),
        ("run --rules folder true", 1, "folder: this is a folder"),
        ("explain GET https://a.test --rules huge", 1, "huge: the file is larger"),
        ("run nosuchprogram", 127, "mitm-gateway: nosuchprogram: no such program"),
        ("run ./rules.yaml", 127, "mitm-gateway: ./rules.yaml: no such program"),
        ("stats nowhere.jsonl", 1, "mitm-gateway: nowhere.jsonl: the file does not exist"),
        ("stats folder", 1, "mitm-gateway: folder: this is a folder; expected a file"),
        ("flows nowhere.mitm", 1, "mitm-gateway: nowhere.mitm: the file does not exist; expected"),
        ("token-files --rules rules.yaml binary", 1, "mitm-gateway: binary: File exists"),
        ("init litellm --rules rules.yaml", 1, "mitm-gateway: rules.yaml: the file exists; --force"),
    ],
)  # fmt: skip
def test_an_unusable_file_is_named_with_the_fix(
    line: str, status: int, told: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "folder").mkdir()
    (folder / "binary").write_bytes(b"a\xff")
    (folder / "huge").write_bytes(b"#" * (1 << 19))
    (folder / "utf-16").write_bytes(RULES.encode("utf-16"))
    before = contents(folder)
    assert status_of(line) == status
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(told), printed.err
    assert len(printed.err.splitlines()) == 1
    assert contents(folder) == before


def test_serve_warns_of_a_host_that_no_rule_covers(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        hosts = "--host a.test --host OTHER.test:443"
        assert status_of(f"serve {hosts} --rules rules.yaml --port {taken.getsockname()[1]}") == 1
    lines = capsys.readouterr().err.splitlines()
    told = "no rule covers other.test; name the API that the client calls, as the rules do: a.test"
    assert [line for line in lines if "warning" in line] == [f"mitm-gateway: warning: {told}"]


@pytest.mark.parametrize("columns", [20, 40, 80, 200])
def test_a_fault_breaks_between_words_on_a_terminal(
    columns: int, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = folder / "bad.yaml"
    bad.write_text(RULES.replace("upstream", "timeout"))
    status_of("check bad.yaml")
    whole = capsys.readouterr().err
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("NO_COLOR", "1")
    status_of("check bad.yaml")
    lines = capsys.readouterr().err.splitlines()
    longest = max(map(len, whole.split()))
    assert max(map(len, lines)) <= max(columns, longest + 4)
    assert " ".join(" ".join(lines).split()) == " ".join(whole.split())


def test_every_command_has_a_description_and_examples_that_fit_a_narrow_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("HOME", "/home/user")
    choices = next(action.choices for action in build_parser()._actions if isinstance(action.choices, dict))
    for name, parser in choices.items():
        assert parser.description, name
        assert re.search(rf"examples:\n(?:  .*\n)*  .*mitm-gateway {name}", parser.epilog or ""), name
        assert status_of(f"{name} --help") == 0
    shown = capsys.readouterr().out
    assert "(default 8080)" in shown
    assert not [line for line in shown.splitlines() if len(line) > 60 and len(line.strip().split()) > 1]


def test_a_busy_port_is_named_with_the_way_out(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        assert status_of(f"serve --rules rules.yaml --port {port}") == 1
        told = capsys.readouterr().err.splitlines()[-1]
        assert told == (
            f"mitm-gateway: port {port} is in use; end the program that uses it, or choose another with --port"
        )


def test_messages_act_on_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    common.say("\x1b]0;title\x07\x9b\u202e")
    common.print_fault("\x1b]0;title\x07\x9b\u202e")
    first, second = capsys.readouterr().err.splitlines()
    assert first.isprintable()
    assert second.isprintable()


def test_ports_beyond_the_last_do_not_exist() -> None:
    told = serve.port_fault("127.0.0.1", range(65536, 65538))
    assert told == "port 65536 does not exist; choose a smaller one with --port"


@pytest.mark.parametrize("line", ["presets", "check -", "check nowhere.yaml", "stats", "xyzzy"])
def test_closed_standard_streams_are_no_fault(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    status = status_of(line)
    for name in ("stdin", "stdout", "stderr"):
        getattr(sys, name).close()
    assert status in (0, 1, 2)


def test_a_log_is_not_awaited_from_a_keyboard(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True))
    assert status_of("stats") == 2
    assert "FILE is missing; expected a gateway_log" in capsys.readouterr().err


# Interrupts the import of the commands.
INTERRUPTED = """
import os, signal, sys
class Finder:
    def find_spec(self, name, *_):
        if name == "mitm_gateway.cli.command_line":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Finder())
from mitm_gateway.cli import main
main(["--version"])
"""


def test_an_interrupt_while_the_command_is_loaded_ends_it_without_a_traceback() -> None:
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED],
        env={"PYTHONPATH": str(ROOT / "addon")},
        stderr=subprocess.PIPE,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (-signal.SIGINT, b"")
