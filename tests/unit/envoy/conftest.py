"""Fixtures of the export's tests."""

import pytest

from support.lua import Library


@pytest.fixture(scope="session")
def lua() -> Library:
    """The filter's library with the constants of an export."""
    return Library()
