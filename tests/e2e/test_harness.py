"""The test harness, with a mitmproxy without the gateway."""

from pathlib import Path

import pytest

from support.answers import Bytes, Close, Hang, Reply, insist_on_bearer, json_reply
from support.certificates import Authority
from support.starters import StartMitmdump, StartRecorder
from support.table import table
from support.wire import Wire

pytestmark = pytest.mark.e2e

HOST = [("Host", "gw.test")]


def test_requests_are_kept_to_the_byte(recorder: StartRecorder) -> None:
    upstream = recorder(json_reply({"ok": True}))
    with Wire(upstream.port) as client:
        answer = client.request("POST", "/v1/x?a=%2F", [("X-Mixed-Case", "1"), ("x-mixed-case", "2")], b"{}")
        again = client.request("GET", "/again")
    assert (answer.status, answer.body, again.status) == (200, b'{"ok": true}', 200)
    first, second = upstream.requests
    assert first.headers == (("X-Mixed-Case", "1"), ("x-mixed-case", "2"), ("Content-Length", "2"))
    assert (first.target, first.path, first.body, first.connection) == ("/v1/x?a=%2F", "/v1/x", b"{}", 0)
    assert second.connection == 0
    assert upstream.raw.startswith(b"POST /v1/x?a=%2F HTTP/1.1\r\nX-Mixed-Case: 1\r\n")
    assert len(upstream.connections) == 1


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


@pytest.mark.parametrize(
    ("answer", "received"), [(Bytes(b"nonsense"), b"nonsense"), (Close(), b"")], ids=["bytes", "close"]
)
def test_an_upstream_can_misbehave(recorder: StartRecorder, answer: Bytes | Close, received: bytes) -> None:
    upstream = recorder(answer)
    with Wire(upstream.port) as client:
        client.send_request("GET", "/")
        assert client.receive() == received
        assert received == b"" or client.closed_by_peer()


def test_an_upstream_sees_a_hang_up(recorder: StartRecorder) -> None:
    upstream = recorder(Hang())
    with Wire(upstream.port) as client:
        client.send_request("GET", "/")
        upstream.wait_for_request()
    upstream.wait_for_hangup()


def test_an_upstream_with_another_name_is_not_trusted(
    recorder: StartRecorder, mitmdump: StartMitmdump, authority: Authority
) -> None:
    upstream = recorder(Reply(), tls=authority, names=["other.test"])
    proxy = mitmdump(
        "--set",
        "connection_strategy=lazy",
        script=None,
        names={"gw.test": upstream.port},
        trust=authority.ca_file,
    )
    with Wire.through(proxy.port, "gw.test:443", proxy.ca_cert) as client:
        assert client.request("GET", "/", HOST).status == 502
    assert upstream.requests == []


def test_unknown_names_are_not_looked_up(mitmdump: StartMitmdump) -> None:
    proxy = mitmdump(script=None)
    with Wire(proxy.port) as client:
        assert client.request("GET", "http://example.com/", [("Host", "example.com")]).status == 502
    assert "the test knows no example.com:80" in proxy.output()


def test_the_end_of_a_process_can_be_awaited(mitmdump: StartMitmdump, tmp_path: Path) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text("raise RuntimeError('out of order')\n")
    proxy = mitmdump(script=broken, wait=False)
    assert proxy.wait_for_exit() == 1
    assert "out of order" in proxy.output()
    with pytest.raises(RuntimeError, match="out of order"):
        mitmdump(script=broken)
