"""Fixtures of the end-to-end tests."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from support.answers import Reply, Script, claude_answers, json_reply, message
from support.certificates import Authority
from support.constants import API, ENV, REVERSE
from support.envoy import Envoy
from support.fixture_types import (
    StartEnvoy,
    StartGateway,
    StartMitmdump,
    StartOneEnvoy,
    StartRecorder,
    StartTerminal,
)
from support.mitmdump import Mitmdump
from support.one_rule import rules
from support.presets import KEY, Setting, StartPreset
from support.recorder import Recorder
from support.terminal import Terminal


@pytest.fixture
def terminal() -> Iterator[StartTerminal]:
    """Start a program in a terminal: `terminal(folder, command, env)`."""
    if not shutil.which("tmux"):
        pytest.skip("tmux is not installed")
    with ExitStack() as opened:

        def start(folder: Path, command: Sequence[str | Path], env: Mapping[str, str]) -> Terminal:
            started = Terminal(folder, command, env)
            opened.callback(started.close)
            return started

        yield start


@pytest.fixture
def gateway(recorder: StartRecorder, mitmdump: StartMitmdump) -> StartGateway:
    """Start a rule and its upstream: `gateway(script, further keys of the rule, *options, **those of Mitmdump)`."""

    def start(
        script: Script | None = None,
        extra: str = "",
        *args: str,
        auth: str = "{scheme: bearer, credential: gw}",
        **options: Any,
    ) -> tuple[Recorder, Mitmdump]:
        upstream = recorder(script or json_reply(message()))
        settings = {"modes": REVERSE, "env": ENV, **options}
        return upstream, mitmdump(*args, rules=rules(upstream.url, extra, auth=auth), **settings)

    return start


@pytest.fixture
def one_envoy(recorder: StartRecorder, envoy: StartEnvoy) -> StartOneEnvoy:
    """Start a rule and its upstream: `one_envoy(script, further keys of the rule, **options of an export)`."""

    def start(script: Script | None = None, more: str = "", **options: Any) -> tuple[Recorder, Envoy]:
        upstream = recorder(script or Reply(200, b"{}"))
        return upstream, envoy(rules(upstream.url, more), **options)

    return start


@pytest.fixture
def start_preset(recorder: StartRecorder, mitmdump: StartMitmdump, authority: Authority) -> StartPreset:
    """Start a setting: `start_preset(PRESET, upstream host, extra keys of the rule, env=…, listen=host, script=…)`."""

    def run(
        preset: str,
        host: str,
        extra: str = "",
        *,
        env: Mapping[str, str] | None = None,
        listen: str = API,
        script: Any = claude_answers,
        credentials: str = "{env: PROVIDER_KEY}",
        auth: str = "{credential: key}",
    ) -> Setting:
        upstream = recorder(script, tls=authority, names=[host])
        rules = f"""
credentials:
  key: {credentials}
rules:
  - preset: {preset}
    auth: {auth}
{extra}
"""
        proxy = mitmdump(
            rules=rules,
            modes=[f"reverse:https://{listen}"],
            names={f"{host}:443": upstream.port},
            trust=authority.ca_file,
            env={"PROVIDER_KEY": KEY, **(env or {})},
        )
        return Setting(upstream, proxy)

    return run
