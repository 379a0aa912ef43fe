"""mitmdump and Envoy with the same rules, in front of one upstream."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from support.answers import json_reply, message
from support.constants import API, GW, REVERSE
from support.envoy import Envoy
from support.mitmdump import Mitmdump
from support.recorder import Recorder

ENV = {"GW_KEY": GW, "OTHER_KEY": "other-secret"}
ENGINES = ("mitmdump", "envoy")
LOG = "access.log"  # in the folder of an engine
# Options of an export, and the gateway's options of the same meaning; the others are Envoy's alone.
OPTIONS = {"body_limit": "gateway_body_limit", "clients": "gateway_clients"}
Started = tuple[Any, Recorder]
"""An engine, and the upstream of its rules."""


@contextmanager
def started(request: pytest.FixtureRequest, rules: Callable[[str], str], **export: Any) -> Iterator[Started]:
    """Start the engine that the fixture's parameter names; `export` are options for Envoy's export."""
    folder = request.getfixturevalue("tmp_path_factory").mktemp(request.param)
    proxy: Any
    with Recorder(json_reply(message())) as upstream:
        if request.param == "mitmdump":
            options = {"gateway_log": folder / LOG}
            options |= {OPTIONS[name]: value for name, value in export.items() if name in OPTIONS}
            sets = [part for name, value in options.items() for part in ("--set", f"{name}={value}")]
            proxy = Mitmdump(folder, *sets, rules=rules(upstream.url), modes=[*REVERSE, "regular"], env=ENV)
        else:
            program = request.getfixturevalue("envoy_program")
            proxy = Envoy(program, folder, rules(upstream.url), ENV, API, **export)
        try:
            yield proxy, upstream
        finally:
            proxy.kill()
