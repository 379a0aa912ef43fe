"""`mitm-gateway run`: the client uses the gateway and otherwise runs as if started directly."""

import contextlib
import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from support.answers import json_reply, message
from support.command import KEY, Command, environment_form, names
from support.fixture_types import StartRecorder
from support.one_rule import one_rule
from support.recorder import Recorder
from support.waiting import wait_until

pytestmark = pytest.mark.e2e


def rules(upstream: Recorder, host: str = "api.anthropic.com") -> str:
    return one_rule(upstream.url, host=host)


def python(code: str) -> list[str]:
    """A client that is a few lines of Python."""
    return [sys.executable, "-c", code]


def ask(text: str) -> list[str]:
    """A client that asks the Messages API once."""
    body = json.dumps({"model": "claude-x", "messages": [{"role": "user", "content": text}]})
    url = "os.environ['ANTHROPIC_BASE_URL'] + '/v1/messages'"
    return python(f"import os, urllib.request as u; u.urlopen(u.Request({url}, {body.encode()!r}))")


# ---- what a client gets ----


def test_input_output_and_exit_status_pass_through(recorder: StartRecorder, command: Command) -> None:
    client = python("import sys; print(sys.stdin.read().upper()); print('err', file=sys.stderr); sys.exit(7)")
    done = command.run("run", "--", *client, env=environment_form(recorder()), text="hello")
    assert (done.returncode, done.stdout) == (7, "HELLO\n")
    assert "\nerr\n" in done.stderr


def test_the_client_never_sees_the_key(recorder: StartRecorder, command: Command) -> None:
    command.write_rules(rules(recorder()))
    texts = {"LOGIN": f"https://user:{KEY}@gw.test/", "HEADER": f"Authorization: Bearer {KEY}"}
    for env, args in (
        ({"OTHER_NAME_OF_IT": KEY, **texts}, ()),
        ({"ANTHROPIC_API_KEY": KEY, **texts}, ("--intercept",)),
    ):
        done = command.run("run", *args, "--", "env", env={"GW_KEY": KEY, **env})
        assert done.returncode == 0, done
        assert KEY not in done.stdout + done.stderr
        assert names(["GW_KEY", *env], done.stdout) <= {"ANTHROPIC_API_KEY"}
        assert "ANTHROPIC_AUTH_TOKEN=placeholder" in done.stdout


def test_conflicting_variables_are_unset(recorder: StartRecorder, command: Command) -> None:
    conflicting = {
        "ANTHROPIC_AUTH_TOKEN": "other",
        "CLAUDE_CODE_USE_BEDROCK": "1",
        "CLAUDE_CODE_OAUTH_TOKEN": "sk-ant-oat-0123456789abcdef",
    }
    env = {**environment_form(recorder()), **conflicting, "UNRELATED": "kept"}
    done = command.run("run", "--", "env", env=env)
    words = [*conflicting, "ANTHROPIC_AUTH_MODE", "ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL", "UNRELATED"]
    assert names(words, done.stdout) == {"ANTHROPIC_BASE_URL", "ANTHROPIC_AUTH_TOKEN", "UNRELATED"}
    assert "ANTHROPIC_AUTH_TOKEN=placeholder" in done.stdout
    assert re.search(r"^ANTHROPIC_BASE_URL=http://127\.0\.0\.1:\d+$", done.stdout, re.MULTILINE)


def test_openai_clients_get_a_listener_of_their_own(recorder: StartRecorder, command: Command) -> None:
    upstream = recorder(json_reply({}))
    _, _, more = rules(upstream, "api.openai.com").replace("name: gw", "name: openai").partition("rules:\n")
    command.write_rules(rules(upstream) + more)
    url = "os.environ['OPENAI_BASE_URL'] + '/models'"
    client = python(f"import os, urllib.request as u; u.urlopen({url})")
    done = command.run("run", "--", *client, env={"GW_KEY": KEY})
    assert done.returncode == 0, done
    (request,) = upstream.requests
    assert (request.path, request.values("authorization")) == ("/v1/models", [f"Bearer {KEY}"])


def test_curl_and_python_trust_the_gateway_when_it_intercepts(
    recorder: StartRecorder, command: Command
) -> None:
    url = "https://api.anthropic.com/v1/messages"
    code = f"""
import subprocess, sys, urllib.request, requests
print(urllib.request.urlopen({url!r}, b"{{}}").status, requests.post({url!r}, json={{}}).status_code, flush=True)
subprocess.run(["curl", "-sS", "-o", "/dev/null", "-w", "%{{http_code}}", "-d", "{{}}", {url!r}])
"""
    env = {**environment_form(recorder(json_reply(message()))), "NO_PROXY": "*"}
    done = command.run("run", "--intercept", "--", *python(code), env=env)
    assert (done.returncode, done.stdout) == (0, "200 200\n200"), done


def test_mitmweb_shows_the_traffic(recorder: StartRecorder, command: Command) -> None:
    client = ask("hi")
    upstream = recorder(json_reply(message()))
    done = command.run("run", "--web", "--no-browser", "--", *client, env=environment_form(upstream))
    assert done.returncode == 0, done
    assert re.search(r"the traffic is at http://127\.0\.0\.1:\d+/", done.stderr)
    # mitmweb ends with the client; the recording stays.
    kept = done.stderr.splitlines()[-1].partition("recorded in ")[2].partition(";")[0]
    assert Path(kept).parent == command.logs[0].parent
    assert Path(kept).stat().st_mode & 0o777 == 0o600
    assert KEY.encode() not in Path(kept).read_bytes()
    listed = command.run("flows", kept)
    assert (listed.returncode, len(listed.stdout.splitlines())) == (0, 2), listed


def test_a_session_is_recorded_in_a_new_file(recorder: StartRecorder, command: Command) -> None:
    upstream, client = recorder(json_reply(message())), ask("50%/day")
    target = command.home / "talk 50%d.mitm"
    done = command.run("run", "--save", target, "--", *client, env=environment_form(upstream))
    assert done.returncode == 0, done
    assert f"the traffic is recorded in {target}; " in done.stderr
    assert target.stat().st_mode & 0o777 == 0o600
    shown = command.run("flows", target, "--show", "1").stdout
    assert "50%/day" in shown
    before = target.read_bytes()
    again = command.run("run", "--save", target, "--", *client, env=environment_form(upstream))
    assert (again.returncode, target.read_bytes()) == (2, before)
    assert "the file exists; expected a new one" in again.stderr


# ---- ends ----


def processes_of(command: Command) -> list[str]:
    """Return the processes of a command that run: it, its gateway and its client have its home as their folder."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (folder / "cwd").readlink() == command.home:
                found.append(folder.name)
    return found


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signals_reach_the_client(recorder: StartRecorder, command: Command, number: signal.Signals) -> None:
    client = python(
        f"import signal, sys; signal.signal({number.value}, lambda *_: sys.exit(9)); "
        "print('ready', flush=True); signal.pause()"
    )
    running = command.fork("run", "--", *client, env=environment_form(recorder()))
    running.wait_for_output("ready\n")
    assert len(processes_of(command)) == 3
    running.process.send_signal(number)
    assert running.wait_for_exit() == 9
    assert processes_of(command) == []


def test_the_exit_status_names_the_signal_that_killed_the_client(
    recorder: StartRecorder, command: Command
) -> None:
    client = python("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    running = command.fork("run", "--", *client, env=environment_form(recorder()))
    assert running.wait_for_exit() == 128 + signal.SIGKILL
    assert processes_of(command) == []


def test_the_gateway_ends_when_the_launcher_is_killed(recorder: StartRecorder, command: Command) -> None:
    client = python("import sys; print('ready', flush=True); sys.stdin.read()")
    running = command.start("run", "--", *client, env=environment_form(recorder()), stdin=subprocess.PIPE)
    assert running.stdout
    assert running.stdout.readline() == "ready\n"
    assert len(processes_of(command)) == 3
    running.kill()
    running.wait(30)
    wait_until(lambda: len(processes_of(command)) == 1)  # the client, whose input is still open
    running.communicate()


# ---- what can be wrong ----


def test_an_unknown_client_is_reported(command: Command) -> None:
    done = command.run("run", "--", "no-such-client-here")
    assert done.returncode == 127
    assert done.stderr == "mitm-gateway: no-such-client-here: no such program\n"


def test_a_credential_without_a_value_is_reported_before_the_client_needs_it(command: Command) -> None:
    command.write_rules(
        "credentials: {gw: {env: GW_KEY}}\n"
        "rules: [{name: r, match: {host: api.anthropic.com}, upstream: demo, auth: {scheme: bearer, credential: gw}}]"
    ).chmod(0o600)
    warning = 'warning: credential "gw" reads GW_KEY, which is not set here\n'
    assert warning in command.run("run", "--", "true").stderr
    assert warning not in command.run("run", "--", "true", env={"GW_KEY": "k"}).stderr


def test_settings_that_bypass_the_gateway_are_reported(recorder: StartRecorder, command: Command) -> None:
    settings = command.home / ".claude" / "settings.json"
    settings.parent.mkdir()
    settings.write_text(
        json.dumps(
            {"env": {"ANTHROPIC_BASE_URL": "https://elsewhere.example.com"}, "forceLoginMethod": "console"}
        )
    )
    done = command.run("run", "--", "true", env=environment_form(recorder()))
    assert f'"env" in {settings} sets ANTHROPIC_BASE_URL, which overrides this command' in done.stderr
    assert f'"forceLoginMethod" in {settings} makes Claude Code ignore gateway keys' in done.stderr


def test_the_environment_form_reports_what_is_missing(command: Command) -> None:
    done = command.run("run", "--", "true", env={"ANTHROPIC_AUTH_MODE": "baerer"})
    assert done.returncode == 1
    assert (
        'ANTHROPIC_AUTH_MODE is not known; expected one of bearer, x-api-key (did you mean "bearer"?)'
        in done.stderr
    )
    assert "ANTHROPIC_API_KEY is not set" in done.stderr


# ---- clients that go their own way ----


@pytest.mark.parametrize(
    ("name", "status", "said"),
    [
        ("claude", 3, "claude ended without a request through the gateway. "),
        ("pi", 2, "use `mitm-gateway run --intercept`"),  # reads no variable, so it is not even started
    ],
)
def test_a_client_that_ignores_everything_is_reported_with_the_way_out(
    command: Command, name: str, status: int, said: str
) -> None:
    hosts = "[api.anthropic.com, api.openai.com, generativelanguage.googleapis.com]"
    command.write_rules(f"rules: [{{match: {{host: {hosts}}}, upstream: https://gw.test}}]")
    stand_in = command.home / name
    stand_in.write_text("#!/bin/sh\nexit 3\n")
    stand_in.chmod(0o755)
    done = command.run("run", "--", stand_in)
    assert (done.returncode, said in done.stderr) == (status, True), done


def test_a_client_that_trusts_other_certificates_only_is_not_said_to_ignore_the_proxy(
    command: Command,
) -> None:
    command.write_rules("rules: [{match: {host: api.anthropic.com}, upstream: demo}]")
    code = "import ssl, urllib.request as u; trust = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)\n"
    code += "u.urlopen('https://api.anthropic.com', context=trust)"
    done = command.run("run", "--intercept", "--", *python(code))
    assert "connected to the gateway, but no rule took a request. " in done.stderr
    assert "HTTPS_PROXY" not in done.stderr.splitlines()[-1]


def test_refusals_and_hints_are_summed_up_at_the_end(recorder: StartRecorder, command: Command) -> None:
    error = {"type": "error", "error": {"type": "not_found_error", "message": "model: claude-x"}}
    upstream = recorder(json_reply(error, 404))
    command.write_rules(rules(upstream))
    code = """
import contextlib, os, urllib.error, urllib.request
for _ in range(2):
    with contextlib.suppress(urllib.error.HTTPError):
        urllib.request.urlopen(os.environ["ANTHROPIC_BASE_URL"] + "/v1/messages", b'{"model":"claude-x"}')
"""
    done = command.run("run", "--", *python(code), env={"GW_KEY": KEY})
    assert done.returncode == 0, done
    said = [line for line in done.stderr.splitlines() if line.startswith("mitm-gateway: ")]
    ours = (
        "rules from",
        "2 of 2 requests failed, most often: the upstream answered with 404",
        "hint: the upstream does",
    )
    # The hint comes first where the client is still running.
    assert sorted(next(part for part in ours if part in line) for line in said) == sorted(ours), said
