"""mitmdump and Envoy with the same rules, in front of one upstream."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from support.constants import API, GW, REVERSE
from support.envoy import Envoy
from support.mitmdump import Mitmdump
from support.recorder import Recorder

ENV = {"GW_KEY": GW, "OTHER_KEY": "other-secret"}
ENGINES = ("mitmdump", "envoy")
LOG = "access.log"  # in the folder of an engine
Shared = tuple[Any, Recorder]
"""An engine, and the upstream of its rules."""


@contextmanager
def started(request: pytest.FixtureRequest, rules: Callable[[str], str], **export: Any) -> Iterator[Shared]:
    """Start the engine that the fixture's parameter names; `export` are options for Envoy's export."""
    folder = request.getfixturevalue("tmp_path_factory").mktemp(request.param)
    proxy: Any
    with Recorder() as upstream:
        if request.param == "mitmdump":
            log = ("--set", f"gateway_log={folder / LOG}")
            proxy = Mitmdump(folder, *log, rules=rules(upstream.url), modes=[*REVERSE, "regular"], env=ENV)
        else:
            program = request.getfixturevalue("envoy_program")
            proxy = Envoy(program, folder, rules(upstream.url), ENV, API, **export)
        try:
            yield proxy, upstream
        finally:
            proxy.kill()
