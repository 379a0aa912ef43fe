"""Fixtures of the security tests: a gateway shared by many cases, and one for each case that sets options."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from support.certificates import Authority
from support.company_proxy import Relay
from support.fixture_types import StartStage
from support.security_stage import Stage


@pytest.fixture(scope="session")
def shared_stage(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """One gateway for every case that sets no options."""
    with Stage(tmp_path_factory.mktemp("stage"), authority) as stage:
        yield stage


@pytest.fixture
def stage(shared_stage: Stage) -> Iterator[Stage]:
    """The shared gateway; the invariants are checked at the end of the test."""
    with shared_stage.case():
        yield shared_stage


@pytest.fixture
def stage_with(authority: Authority, tmp_path: Path) -> Iterator[StartStage]:
    """Start a gateway with options: `stage_with("--set", "x=y", rules=TEXT, …)`; see `Stage`."""
    with ExitStack() as opened:

        def start(*args: str, **options: Any) -> Stage:
            stage = opened.enter_context(Stage(tmp_path, authority, *args, **options))
            opened.enter_context(stage.case())
            return stage

        yield start


@pytest.fixture
def relay() -> Iterator[Relay]:
    """A company's proxy."""
    with Relay() as started:
        yield started


@pytest.fixture(scope="session")
def web_stage(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """One gateway in mitmweb for every case about its pages."""
    with Stage(tmp_path_factory.mktemp("web"), authority, web=True) as stage:
        yield stage


@pytest.fixture
def shared_web(web_stage: Stage) -> Iterator[Stage]:
    """The shared mitmweb; the invariants are checked at the end of the test."""
    with web_stage.case():
        yield web_stage
