"""The output of helpers."""

import json
from typing import Any

import pytest

from mitm_gateway.credentials.helper import parse_output
from mitm_gateway.credentials.value import CredentialError
from mitm_gateway.text.redact import Secret
from support.table import table


@table(
    ("data", "life"),
    [
        ({"token": "t"}, 300),
        ({"access_token": "t", "expires_in": 1000, "token_type": "Bearer"}, 995),
        ({"accessToken": "t", "expiresOn": "1970-01-01 01:25:00+00:00"}, 95),
        ({"accessToken": "t", "expires_on": 5100, "expiresOn": "1970-01-01 05:00:00.123456"}, 95),
        ({"accessToken": "t", "expiresOn": None}, 300),
        ({"token": "t", "expires_in": 1000}, 995),
        ({"token": "t", "expires_in": 4}, 2),
        ({"token": "t", "expires_at": 5100}, 95),
        ({"access_token": "t", "expires_in": "1000", "expires_on": "6000"}, 995),  # Azure AD v1
        (
            {"access_token": "t", "expires_in": "1000", "expires_on": "5100"},
            95,
        ),  # from a metadata server's cache
        ({"token": "t", "expires_in": "1000.5"}, 995.5),
        ({"token": "t", "expires_at": "5100"}, 95),
        ({"token": "t", "expires_at": "1970-01-01T01:25:00Z"}, 95),
        ({"token": "t", "expires_at": "1970-01-01T03:25:00+02:00"}, 95),
        ({"token": "t", "expires_at": "1970-01-01t01:25:00z"}, 95),
        ({"token": "t", "expires_at": "1970-01-01T01:24:60Z"}, 94),  # a leap second
        ({"token": "t", "expires_at": None, "headers": None}, 300),
    ],
)
def test_a_helper_may_limit_the_life_of_its_value(data: dict[str, Any], life: float) -> None:
    found = parse_output(json.dumps(data).encode(), 300, now=10, wall=5000)
    assert found.stale_at == 10 + life


@table(
    "expiry",
    [
        '"expires_in": 1' + "0" * 400, '"expires_in": 1e400', '"expires_at": 1' + "0" * 400,
        '"expires_at": "9999-12-31T23:59:59+00:00"',
    ],
)  # fmt: skip
def test_a_distant_expiry_is_a_year_away(expiry: str) -> None:
    found = parse_output(f'{{"token": "t", {expiry}}}'.encode(), 300, now=10, wall=5000)
    assert found.stale_at == 10 + 365 * 86400 - 5


@table(
    "expiry",
    [
        '"expires_in": -1' + "0" * 400, '"expires_in": -1e400', '"expires_in": NaN', '"expires_in": true',
        '"expires_in": "an hour"', '"expires_in": "1e3"', '"expires_in": ""',
        '"expires_at": "soon"', '"expires_at": "2026-01-01T00:00:00"', '"expires_at": [1]',
        '"expires_at": "0001-01-01T00:00:00+23:59"', '"expires_in": 1' + "0" * 5000,
    ],
)  # fmt: skip
def test_an_unusable_expiry_is_an_error(expiry: str) -> None:
    with pytest.raises(CredentialError):
        parse_output(f'{{"token": "t", {expiry}}}'.encode(), 300, now=10, wall=5000)


@table(
    "name",
    ["Transfer-Encoding", "transfer_encoding", "Content-Length", "Host", "Connection", "Upgrade", "TE", "Expect",
     "Keep-Alive", "Proxy-Connection", "Trailer", "HTTP2-Settings", "a b", "", ":path"],
)  # fmt: skip
def test_headers_that_break_the_framing_are_refused(name: str) -> None:
    output = json.dumps({"token": "t", "headers": {name: "chunked"}}).encode()
    with pytest.raises(CredentialError, match='"headers"'):
        parse_output(output, 300, 0, 0)


def test_a_helper_may_add_headers() -> None:
    output = json.dumps({"token": "t", "headers": {"X-Org": "o"}}).encode()
    assert parse_output(output, 300, 0, 0).headers == (("X-Org", Secret("o")),)


@table(
    ("api", "authority"),
    [("https://api.business.test", "api.business.test"), ("https://api.business.test:8443/v1", "api.business.test:8443"),
     ("api.business.test", None), ("", None), (7, None), (None, None), (["https://a.test"], None)],
)  # fmt: skip
def test_a_helper_may_name_the_api_of_its_token(api: object, authority: str | None) -> None:
    found = parse_output(json.dumps({"token": "t", "api": api}).encode(), 300, 0, 0)
    assert (found.api and found.api.authority) == authority
