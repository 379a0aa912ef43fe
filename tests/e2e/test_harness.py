"""What the test harness refuses: no other test would notice if it did not."""

import pytest

from support.answers import Reply, insist_on_bearer
from support.certificates import Authority
from support.starters import StartMitmdump, StartRecorder
from support.table import table
from support.wire import Wire

pytestmark = pytest.mark.e2e

HOST = [("Host", "gw.test")]


@table(
    ("headers", "status"),
    [
        ([("Authorization", "Bearer right")], 200),
        ([("Authorization", "Bearer wrong")], 401),
        ([("x-api-key", "right")], 401),
        ([("Authorization", "Bearer right"), ("X-Api-Key", "right")], 401),
        ([("Authorization", "Bearer right"), ("Authorization", "Bearer right")], 401),
    ],
)
def test_an_upstream_can_insist_on_a_bearer_token(
    recorder: StartRecorder, headers: list[tuple[str, str]], status: int
) -> None:
    upstream = recorder(insist_on_bearer("right", Reply()))
    with Wire(upstream.port) as client:
        assert client.request("GET", "/v1/models", headers).status == status


def test_an_upstream_with_another_name_is_not_trusted(
    recorder: StartRecorder, mitmdump: StartMitmdump, authority: Authority
) -> None:
    upstream = recorder(Reply(), tls=authority, names=["other.test"])
    lazy = ("--set", "connection_strategy=lazy")
    proxy = mitmdump(*lazy, script=None, names={"gw.test": upstream.port}, trust=authority.ca_file)
    with Wire.through(proxy.port, "gw.test:443", proxy.ca_cert) as client:
        assert client.request("GET", "/", HOST).status == 502
    assert upstream.requests == []


def test_unknown_names_are_not_looked_up(mitmdump: StartMitmdump) -> None:
    proxy = mitmdump(script=None)
    with Wire(proxy.port) as client:
        assert client.request("GET", "http://example.com/", [("Host", "example.com")]).status == 502
    assert "the test knows no example.com:80" in proxy.output()
