"""Secrets from the environment, files and helper programs."""

import asyncio
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from mitm_gateway.credentials.store import Credentials
from mitm_gateway.credentials.value import CredentialError
from mitm_gateway.rules.schema import Credential


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def make(source: dict[str, Any], environ: dict[str, str] | None = None, **keys: Any) -> Credentials:
    return Credentials({"c": Credential.model_validate(source)}, {} if environ is None else environ, **keys)


async def value(credentials: Credentials) -> str:
    return (await credentials.get("c")).secret.reveal()


async def fault(credentials: Credentials) -> str:
    with pytest.raises(CredentialError) as raised:
        await credentials.get("c")
    return str(raised.value)


async def test_the_environment_is_read_when_needed() -> None:
    environ: dict[str, str] = {}
    credentials = make({"env": "KEY"}, environ)
    assert await fault(credentials) == 'credential "c": the environment variable KEY is not set'
    environ["KEY"] = "secret"
    assert await value(credentials) == "secret"


@pytest.mark.parametrize("environ", [{}, {"KEY": ""}])
async def test_a_default_is_used_if_the_variable_is_not_set(environ: dict[str, str]) -> None:
    assert await value(make({"env": "KEY", "default": "demo-key"}, environ)) == "demo-key"


async def test_a_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("one\n")
    credentials = make({"file": str(file)})
    assert await value(credentials) == "one"
    replacement = tmp_path / "new"
    replacement.write_text("two")
    replacement.replace(file)
    assert await value(credentials) == "two"


@pytest.mark.skipif(not hasattr(time, "CLOCK_BOOTTIME"), reason="Linux")
async def test_a_token_expires_while_the_machine_sleeps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = tmp_path / "token"
    token.write_text("one")
    credentials = make({"command": ["cat", str(token)], "ttl": "1h"}, {"PATH": os.environ["PATH"]})
    assert await value(credentials) == "one"
    token.write_text("two")
    awake = time.clock_gettime(time.CLOCK_BOOTTIME)
    monkeypatch.setattr(time, "clock_gettime", lambda clock: awake + 8 * 3600)
    assert await value(credentials) == "two"


async def test_a_symbolic_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("one")
    (tmp_path / "link").symlink_to(tmp_path / "key")
    assert await value(make({"file": str(tmp_path / "link")})) == "one"


@pytest.mark.parametrize(
    ("create", "expected"),
    [
        (lambda path: None, "the file does not exist"),
        (Path.mkdir, "this is a folder; expected a file"),
        (os.mkfifo, "not a regular file"),
        (lambda path: path.symlink_to("/dev/zero"), "not a regular file"),
        (lambda path: path.write_bytes(b"a" * (64 * 1024 + 1)), "larger than 64 KiB"),
        (lambda path: path.write_bytes(b"abc\r\nX-Evil: 1"), "line breaks"),
        (lambda path: path.write_bytes(b"\xff"), "non-ASCII"),
    ],
    ids=["missing", "directory", "pipe", "device", "large", "two-lines", "binary"],
)
async def test_an_unusable_file_is_an_error_and_never_hangs(
    tmp_path: Path, create: Any, expected: str
) -> None:
    create(tmp_path / "key")
    message = await asyncio.wait_for(fault(make({"file": str(tmp_path / "key")})), 5)
    assert expected in message
    assert "X-Evil" not in message


async def test_a_file_that_others_can_read_causes_a_warning(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("one")
    file.chmod(0o644)
    warnings: list[str] = []
    await value(make({"file": str(file)}, warn=warnings.append))
    assert warnings == ['other users can read the file of credential "c"; run chmod 600 on it']


def helper(tmp_path: Path, body: str) -> list[str]:
    """A helper program in Python that first counts its runs in a file."""
    script = tmp_path / "helper.py"
    counted = f"runs = {str(tmp_path / 'runs')!r}\nwith open(runs, 'a') as file:\n    file.write('x')"
    script.write_text(f"import os, sys, time, json\n{counted}\n{body}\n")
    return [sys.executable, str(script)]


def runs(tmp_path: Path) -> int:
    counted = tmp_path / "runs"
    return len(counted.read_text()) if counted.exists() else 0


async def test_fifty_requests_share_one_run(tmp_path: Path) -> None:
    credentials = make({"command": helper(tmp_path, "time.sleep(0.2); print('secret')")})
    assert set(await asyncio.gather(*(value(credentials) for _ in range(50)))) == {"secret"}
    assert runs(tmp_path) == 1


async def test_a_client_that_leaves_does_not_end_the_run_of_others(tmp_path: Path) -> None:
    credentials = make({"command": helper(tmp_path, "time.sleep(0.3); print('secret')")})
    leaving = asyncio.create_task(value(credentials))
    staying = asyncio.create_task(value(credentials))
    await asyncio.sleep(0)
    leaving.cancel()
    assert await staying == "secret"


async def test_only_the_first_request_has_to_wait_for_a_helper(tmp_path: Path) -> None:
    credentials = make({"command": helper(tmp_path, "print('secret')"), "ttl": "100s"})
    assert credentials.at_hand("c") is None
    assert runs(tmp_path) == 0
    await credentials.get("c")
    at_hand = credentials.at_hand("c")
    assert at_hand is not None
    assert at_hand.secret.reveal() == "secret"
    assert runs(tmp_path) == 1


def test_a_missing_value_is_reported_without_waiting() -> None:
    with pytest.raises(CredentialError, match='credential "c": the environment variable ABSENT is not set'):
        make({"env": "ABSENT"}).at_hand("c")


async def test_a_value_is_used_for_its_ttl(tmp_path: Path) -> None:
    clock = Clock()
    argv = helper(tmp_path, "print(f'secret{os.path.getsize(runs)}')")
    credentials = make({"command": argv, "ttl": "100s"}, now=clock)
    assert await value(credentials) == "secret1"
    clock.now += 80
    assert await value(credentials) == "secret1"
    clock.now += 21
    assert await value(credentials) == "secret2"


async def test_a_value_is_refreshed_in_the_background_while_the_old_one_is_used(tmp_path: Path) -> None:
    clock = Clock()
    argv = helper(tmp_path, "print(f'secret{os.path.getsize(runs)}')")
    credentials = make({"command": argv, "ttl": "100s"}, now=clock)
    await value(credentials)
    clock.now += 95
    assert await value(credentials) == "secret1"
    async with asyncio.timeout(10):
        while await value(credentials) != "secret2":  # noqa: ASYNC110 - the run is another process
            await asyncio.sleep(0.01)
    assert runs(tmp_path) == 2


SECRET = "S3CRET-VALUE"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (f"print('{SECRET}', file=sys.stderr); sys.exit(3)", "failed with exit status 3"),
        (f"print('{SECRET} x')", "contains spaces"),
        (f"print('{SECRET}\\n{SECRET}')", "line breaks"),
        (f"print('{SECRET}\\x1b[31m')", "control"),
        ("print('a' * (1 << 20))", "more than 64 KiB"),
        ("pass", "is empty"),
        (f'print(\'{{"token": "{SECRET}\')', "broken JSON"),
        ("print('{\"token\": 5}')", 'without a text "token"'),
        (f"print(json.dumps(dict(token='{SECRET}', expires_in=-1)))", "expired"),
        (f"print(json.dumps(dict(token='{SECRET}', expires_at='soon')))", "RFC 3339"),
        (f"print(json.dumps(dict(token='{SECRET}', headers={{'a b': 'c'}})))", "headers"),
    ],
)
async def test_an_error_names_the_credential_and_shows_no_output_of_the_helper(
    tmp_path: Path, body: str, expected: str
) -> None:
    message = await fault(make({"command": helper(tmp_path, body)}))
    assert expected in message
    assert message.startswith('credential "c": ')
    assert SECRET not in message


@pytest.mark.parametrize(
    ("body", "line"),
    [
        ("print('first\\nsign in once: `az login`\\n\\n', file=sys.stderr); sys.exit(1)", "sign in once: `az login`"),
        (f"print('{SECRET}', flush=True); print('bad {SECRET}!', file=sys.stderr); sys.exit(1)", "bad ****!"),
        ("print('env ' + os.environ['MY_API_KEY'], file=sys.stderr); sys.exit(1)", "env ****MENT"),
        ("print('a\\x1b[2J' + 'x' * 10**6, file=sys.stderr); sys.exit(1)", "x" * 200),
        ("print('why', file=sys.stderr)", "why"),
        ("sys.stderr.buffer.write(b'\\xff\\x1b]0;t'); sys.exit(1)", "\ufffd\u241b]0;t"),
        ("import subprocess; subprocess.Popen(['sleep', '60'], start_new_session=True, stdout=subprocess.DEVNULL);"
         "print('why', file=sys.stderr); sys.exit(1)", "why"),
    ],
)  # fmt: skip
async def test_the_last_line_of_a_failed_helper_is_logged_and_not_part_of_the_error(
    tmp_path: Path, body: str, line: str
) -> None:
    warnings: list[str] = []
    source = {"command": helper(tmp_path, body)}
    environ = {"MY_API_KEY": "S3CRET-OF-THE-ENVIRONMENT", "PATH": os.environ["PATH"]}
    message = await fault(make(source, environ, warn=warnings.append))
    assert warnings == [f'the helper of credential "c" wrote: {line}']
    assert "why" not in message
    assert "once" not in message


async def test_a_helper_that_succeeds_may_write_errors(tmp_path: Path) -> None:
    warnings: list[str] = []
    body = "print('x' * 10**6, file=sys.stderr); print('secret')"
    assert await value(make({"command": helper(tmp_path, body)}, warn=warnings.append)) == "secret"
    assert warnings == []


async def test_arguments_of_a_helper_are_not_shown(tmp_path: Path) -> None:
    argv = [*helper(tmp_path, "sys.exit(1)"), "--token=SECRET-ARG"]
    assert "SECRET-ARG" not in await fault(make({"command": argv}))
    assert "SECRET-ARG" not in await fault(make({"command": ["/nonexistent/helper", "--token=SECRET-ARG"]}))


async def test_a_failure_is_remembered_for_a_while(tmp_path: Path) -> None:
    clock = Clock()
    credentials = make({"command": helper(tmp_path, "sys.exit(1)")}, now=clock)
    await fault(credentials)
    clock.now += 4
    await fault(credentials)
    assert runs(tmp_path) == 1
    clock.now += 2
    await fault(credentials)
    assert runs(tmp_path) == 2


async def test_a_hanging_helper_is_ended_with_everything_that_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started, warnings = tmp_path / "pid", list[str]()
    body = (
        "import subprocess\nprint('why', file=sys.stderr, flush=True)\n"
        f"child = subprocess.Popen(['sleep', '60'])\nopen({str(tmp_path / 'new')!r}, 'w').write(str(child.pid))\n"
        f"os.rename({str(tmp_path / 'new')!r}, {str(started)!r})\ntime.sleep(60)"
    )
    credentials = make({"command": helper(tmp_path, body), "timeout": "30s"}, warn=warnings.append)
    waiting = asyncio.create_task(fault(credentials))
    async with asyncio.timeout(60):
        while not started.exists():  # noqa: ASYNC110 - the helper is another process
            await asyncio.sleep(0.01)
    loop = asyncio.get_running_loop()
    time = loop.time
    monkeypatch.setattr(loop, "time", lambda: time() + 31)
    assert "took longer than 30 s" in await waiting
    assert warnings == ['the helper of credential "c" wrote: why']
    pid = int(started.read_text())
    async with asyncio.timeout(5):
        while _is_alive(pid):  # noqa: ASYNC110 - the kernel tells nobody
            await asyncio.sleep(0.01)


def _is_alive(pid: int) -> bool:
    try:
        return ") Z" not in Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


async def test_a_rejected_value_is_dropped_once(tmp_path: Path) -> None:
    credentials = make({"command": helper(tmp_path, "print('same')")})
    secret = (await credentials.get("c")).secret
    assert credentials.reject("c", secret)
    assert await value(credentials) == "same"
    assert runs(tmp_path) == 2
    assert not credentials.reject("c", secret)
    await value(credentials)
    assert runs(tmp_path) == 2


async def test_rejecting_an_old_value_keeps_the_new_one(tmp_path: Path) -> None:
    argv = helper(tmp_path, "print(f'secret{os.path.getsize(runs)}')")
    credentials = make({"command": argv})
    first = (await credentials.get("c")).secret
    credentials.reject("c", first)
    assert await value(credentials) == "secret2"
    credentials.reject("c", first)
    assert await value(credentials) == "secret2"


async def test_a_rejected_environment_value_is_not_retried() -> None:
    credentials = make({"env": "KEY"}, {"KEY": "v"})
    assert not credentials.reject("c", (await credentials.get("c")).secret)


async def test_a_reload_keeps_the_values_of_unchanged_credentials(tmp_path: Path) -> None:
    source = {"command": helper(tmp_path, "print('secret')")}
    before = make(source)
    await value(before)
    await value(make(source, previous=before))
    assert runs(tmp_path) == 1
    await value(make({**source, "ttl": "1h"}, previous=before))
    assert runs(tmp_path) == 2


async def test_a_helper_does_not_read_the_terminal(tmp_path: Path) -> None:
    assert await value(make({"command": helper(tmp_path, "print('got' + sys.stdin.read())")})) == "got"


async def test_the_repr_of_a_value_shows_no_secret() -> None:
    credentials = make({"env": "KEY"}, {"KEY": SECRET})
    assert SECRET not in repr(await credentials.get("c"))
