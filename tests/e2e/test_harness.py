"""The test harness, with a mitmproxy without the gateway."""

from pathlib import Path

import pytest

from support.answers import Bytes, Close, Hang, Reply, Stream, insist_on_bearer, json_reply, message_events
from support.certificates import Authority
from support.starters import RunCurl, StartMitmdump, StartRecorder
from support.wire import Http2Client, Wire, pseudo_headers

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


def test_chunked_request_bodies_are_joined(recorder: StartRecorder) -> None:
    upstream = recorder(Reply())
    with Wire(upstream.port) as client:
        client.request("POST", "/", [("Transfer-Encoding", "chunked")], b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
    assert upstream.wait_for_request("/").body == b"abcde"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([("Authorization", "Bearer right")], 200),
        ([("Authorization", "Bearer wrong")], 401),
        ([("x-api-key", "right")], 401),
        ([("Authorization", "Bearer right"), ("X-Api-Key", "right")], 401),
        ([("Authorization", "Bearer right"), ("Authorization", "Bearer right")], 401),
    ],
    ids=["right", "wrong", "key", "both", "twice"],
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


def test_stock_mitmdump_streams_event_by_event(recorder: StartRecorder, mitmdump: StartMitmdump) -> None:
    events = message_events()
    upstream = recorder(Stream(events))
    proxy = mitmdump("--set", "stream_large_bodies=1", script=None, modes=[f"reverse:{upstream.url}"])
    with Wire(proxy.port) as client:
        client.send_request("POST", "/v1/messages", HOST, b"{}")
        client.read_head()
        for number, event in enumerate(events):
            if number:
                upstream.release()
            assert client.read_chunk().data == event
        assert client.read_chunk().data == b""


def test_a_name_resolves_to_a_tls_upstream_with_the_tests_ca(
    recorder: StartRecorder, mitmdump: StartMitmdump, authority: Authority
) -> None:
    upstream = recorder(Reply(body=b"hello"), tls=authority, names=["gw.test"])
    proxy = mitmdump(script=None, names={"gw.test:443": upstream.port}, trust=authority.ca_file)
    with Wire.through(proxy.port, "gw.test:443", proxy.ca_cert) as client:
        answer = client.request("GET", "/v1/models", HOST)
    assert (answer.status, answer.body) == (200, b"hello")
    assert upstream.connections[0].sni == "gw.test"
    assert upstream.requests[0].header("host") == "gw.test"


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


def test_http2_from_client_to_upstream(
    recorder: StartRecorder, mitmdump: StartMitmdump, authority: Authority
) -> None:
    events = message_events()
    upstream = recorder(Stream(events), tls=authority, names=["gw.test"], http2=True)
    proxy = mitmdump(
        "--set",
        "stream_large_bodies=1",
        script=None,
        names={"gw.test": upstream.port},
        trust=authority.ca_file,
    )
    head = [*pseudo_headers("gw.test"), ("x-a", "1")]
    with Wire.through(proxy.port, "gw.test:443", proxy.ca_cert, alpn=["h2"]) as wire:
        client = Http2Client(wire)
        stream = client.send_request(head, b"x" * 200_000)
        assert client.read_chunk(stream, 0).data == events[0]
        upstream.release(len(events) - 1)
        answer = client.read_response(stream)
    assert (answer.status, answer.body) == (200, b"".join(events))
    seen = upstream.wait_for_request("/v1/messages")
    assert (seen.header(":authority"), seen.header("x-a"), len(seen.body)) == ("gw.test", "1", 200_000)
    assert upstream.connections[0].alpn == "h2"


def test_curl_speaks_http2_through_the_proxy(
    recorder: StartRecorder, mitmdump: StartMitmdump, authority: Authority, run_curl: RunCurl
) -> None:
    upstream = recorder(Reply(body=b"hello"), tls=authority, names=["gw.test"], http2=True)
    proxy = mitmdump(script=None, names={"gw.test": upstream.port}, trust=authority.ca_file)
    done = run_curl(
        "--http2", "-x", proxy.url, "--cacert", proxy.ca_cert, "https://gw.test/", "-w", " %{http_version}"
    )
    assert (done.code, done.stdout) == (0, "hello 2"), done.stderr


def test_mitmdump_ends_cleanly_and_keeps_its_output(mitmdump: StartMitmdump) -> None:
    proxy = mitmdump(script=None)
    assert proxy.stop() == 0
    assert "HTTP(S) proxy listening at 127.0.0.1:" in proxy.output()


def test_the_end_of_a_process_can_be_awaited(mitmdump: StartMitmdump, tmp_path: Path) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text("raise RuntimeError('out of order')\n")
    proxy = mitmdump(script=broken, wait=False)
    assert proxy.wait_for_exit() == 1
    assert "out of order" in proxy.output()
    with pytest.raises(RuntimeError, match="out of order"):
        mitmdump(script=broken)


def test_several_listeners_have_a_port_each(recorder: StartRecorder, mitmdump: StartMitmdump) -> None:
    upstream = recorder(Reply(body=b"hello"))
    proxy = mitmdump(script=None, modes=["regular", f"reverse:{upstream.url}"])
    with Wire(proxy.ports[1]) as client:
        assert client.request("GET", "/", HOST).body == b"hello"


def test_mitmweb_shows_its_page(mitmdump: StartMitmdump, run_curl: RunCurl) -> None:
    proxy = mitmdump(script=None, web=True)
    page = run_curl("-L", "-c", "cookies", "-b", "cookies", proxy.web_url)
    assert "<title>mitmproxy</title>" in page.stdout, page
    assert proxy.port != proxy.web_port
