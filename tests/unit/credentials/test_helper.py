"""The output of helpers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from mitm_gateway.credentials.helper import parse_output
from mitm_gateway.text.redact import Secret


@pytest.mark.parametrize(
    ("data", "life"),
    [
        ({"token": "t"}, 300),
        ({"token": "t", "expires_in": 1000}, 995),
        ({"token": "t", "expires_in": 4}, 2),
        ({"token": "t", "expires_at": 5100}, 95),
        ({"token": "t", "expires_at": "1970-01-01T01:25:00Z"}, 95),
        ({"token": "t", "expires_at": "1970-01-01T03:25:00+02:00"}, 95),
    ],
)
def test_the_life_of_a_value(data: dict[str, Any], life: float) -> None:
    found = parse_output(json.dumps(data).encode(), 300, now=10, wall=5000)
    assert found.stale_at == 10 + life


def test_a_helper_may_add_headers() -> None:
    output = json.dumps({"token": "t", "headers": {"X-Org": "o"}}).encode()
    assert parse_output(output, 300, 0, 0).headers == (("X-Org", Secret("o")),)
