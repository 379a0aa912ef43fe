"""A pytest plugin for mitmproxy's own tests: applies the gateway's patches, and notes each test's outcome in a file."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mitmproxy.master import Master
from mitmproxy.proxy.layers.http import HttpStream
from mitmproxy.proxy.server import ConnectionHandler

from mitm_gateway.patches.patch import Patch, Patches
from mitm_gateway.patches.table import PATCHES
from support.patched import no_patches

# Variables: the file for the outcomes, and the names of the patches to apply, with a blank between them.
OUTCOMES, APPLIED = "HOST_SUITE_OUTCOMES", "HOST_SUITE_PATCHES"
# The table of hooks belongs to one Master; each test may create its own.
_OF_A_MASTER = "hook-table"

_outcomes: dict[str, str] = {}
_tables: list[Patches] = []
# The table replaces these; a test's monkeypatch may restore them in another order.
_SHARED = ((ConnectionHandler, "handle_client"), (HttpStream, "handle_event"))


def pytest_configure(config: pytest.Config) -> None:
    """Apply the patches in this process."""
    names = os.environ.get(APPLIED, "").split()
    everywhere = no_patches()
    for patch in PATCHES:
        if patch.name not in names:
            continue
        if patch.name == _OF_A_MASTER:
            _apply_for_each_master(patch)
        else:
            everywhere.apply(patch)


def _apply_for_each_master(patch: Patch) -> None:
    create = Master.__init__

    def init(self: Master, *args: Any, **named: Any) -> None:
        create(self, *args, **named)
        _undo_tables()
        _tables.append(no_patches())
        _tables[0].apply(patch)

    Master.__init__ = init  # type: ignore[method-assign]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol() -> Iterator[None]:
    """Undo the changes for a test's Master, so that tests of layers alone see all hooks."""
    before = [getattr(owner, name) for owner, name in _SHARED]
    try:
        return (yield)
    finally:
        _undo_tables()
        for (owner, name), value in zip(_SHARED, before, strict=True):
            setattr(owner, name, value)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Note the outcome: that of the call, unless set-up or clean-up failed."""
    if report.when == "call" or report.outcome != "passed":
        _outcomes[report.nodeid] = (
            report.outcome if report.when == "call" else f"{report.when} {report.outcome}"
        )


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the outcomes; a worker process has no reports of other workers."""
    if not hasattr(session.config, "workerinput"):
        Path(os.environ[OUTCOMES]).write_text(json.dumps(_outcomes))


def _undo_tables() -> None:
    while _tables:
        _tables.pop().undo("speed", "safety")
