"""Fixtures of the security tests: a gateway that many cases share, and one with options of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from support.certificates import Authority
from support.processes import Mitmdump
from support.relay import Relay
from support.stage import Stage


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """The CA of every TLS upstream under test."""
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="session")
def shared_stage(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """One gateway for all the cases that need no options of their own."""
    with Stage(tmp_path_factory.mktemp("stage"), authority) as stage:
        yield stage


@pytest.fixture
def stage(shared_stage: Stage) -> Iterator[Stage]:
    """The shared gateway; the invariants are checked when the test has ended."""
    with shared_stage.case():
        yield shared_stage


@pytest.fixture
def stage_with(authority: Authority, tmp_path: Path) -> Iterator[Callable[..., Stage]]:
    """Starts a gateway with options: `stage_with("--set", "x=y", rules=TEXT, …)`; see `Stage`."""
    with ExitStack() as opened:

        def start(*args: str, **options: Any) -> Stage:
            stage = opened.enter_context(Stage(tmp_path, authority, *args, **options))
            opened.enter_context(stage.case())
            return stage

        yield start


@pytest.fixture
def relay() -> Iterator[Relay]:
    """A company's own proxy."""
    with Relay() as started:
        yield started


@pytest.fixture
def mitmdump(tmp_path: Path) -> Iterator[Callable[..., Mitmdump]]:
    """Starts mitmproxy alone; see `Mitmdump`."""
    started: list[Mitmdump] = []

    def start(*args: str, **options: Any) -> Mitmdump:
        started.append(Mitmdump(tmp_path, *args, **options))
        return started[-1]

    yield start
    for each in started:
        each.kill()


@pytest.fixture(scope="session")
def web_stage(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A gateway in mitmweb, for all the cases about its pages."""
    with Stage(tmp_path_factory.mktemp("web"), authority, web=True) as stage:
        yield stage


@pytest.fixture
def shared_web(web_stage: Stage) -> Iterator[Stage]:
    """The gateway in mitmweb; the invariants are checked when the test has ended."""
    with web_stage.case():
        yield web_stage
