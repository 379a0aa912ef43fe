"""The gateway's own processes may open more files than shells allow by default."""

import resource
from collections.abc import Iterator

import pytest

from mitm_gateway.cli.mitmproxy_process import _allow_files


@pytest.fixture
def limits() -> Iterator[tuple[int, int]]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield before
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_the_limit_of_open_files_is_raised_and_never_lowered(limits: tuple[int, int]) -> None:
    hard = limits[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, hard))
    _allow_files()
    raised = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert raised[0] == (10_000 if hard == resource.RLIM_INFINITY else min(10_000, hard))
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    _allow_files()
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] >= limits[0]
