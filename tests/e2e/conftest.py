"""Fixtures of the end-to-end tests."""

from collections.abc import Mapping
from typing import Any

import pytest

from support.answers import claude_answers
from support.certificates import Authority
from support.constants import API
from support.presets import KEY, Setting, StartPreset
from support.starters import StartMitmdump, StartRecorder


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
