"""Requests that no rule takes: they stream both ways from the first byte, and a bounded copy stays visible."""

import asyncio
import contextlib
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from mitmproxy import http, io

from support.answers import Bytes, Header, Stream, event, json_reply, message
from support.certificates import Authority
from support.constants import API, CK
from support.fixture_types import StartMitmdump, StartRecorder
from support.http_client import Http2Client, Wire, pseudo_headers
from support.mitmdump import Mitmdump
from support.process_figures import peak_mb
from support.program import unused_port
from support.recorder import Recorder

pytestmark = pytest.mark.e2e

OTHER = "other.test"
EVENTS = tuple(event("number", number=number) for number in range(3))
RULE = "rules: [{name: r, match: {HOST}, upstream: https://gw.test}]\n"
# A host without a rule; a ruled host on a path without one; a model that no rule covers.
RULES = {
    "host": RULE.replace("HOST", f"host: {API}"),
    "path": RULE.replace("HOST", f"host: {OTHER}, path: /v1/**"),
    "model": RULE.replace("HOST", f"host: {OTHER}, model: claude-*"),
}
BODY = b'{"model":"other"}'


def headers_of(*more: Header) -> list[Header]:
    return [("Host", OTHER), ("x-api-key", CK), *more]


def start(mitmdump: StartMitmdump, upstream: Recorder, rules: str, *args: str) -> Mitmdump:
    return mitmdump(*args, rules=rules, names={f"{OTHER}:80": upstream.port})


@pytest.mark.parametrize("kind", RULES)
def test_a_response_streams_from_the_first_byte(
    mitmdump: StartMitmdump, recorder: StartRecorder, kind: str
) -> None:
    upstream, headers = recorder(Stream(EVENTS)), headers_of(("X-Odd", "1"))
    proxy = start(mitmdump, upstream, RULES[kind])
    with Wire(proxy.port) as client:
        client.send_request("POST", f"http://{OTHER}/x", headers, BODY)
        client.read_head()
        for number, expected in enumerate(EVENTS):
            if number:
                upstream.release()
            assert client.read_chunk() == expected
    asked = upstream.wait_for_request("/x")
    assert (asked.body, list(asked.headers)[:3]) == (BODY, headers)


def test_unmatched_requests_of_a_reverse_listener_stream_and_name_the_target(
    mitmdump: StartMitmdump, recorder: StartRecorder
) -> None:
    upstream = recorder(Stream(EVENTS))
    rules = "unmatched: pass\n" + RULE.replace("HOST", f"host: {API}, path: /v1/**")
    proxy = mitmdump(rules=rules, modes=[f"reverse:{upstream.url}"])
    with Wire(proxy.port) as client:
        client.send_request("GET", "/x", [("Host", "localhost"), ("X-A", "1")])
        client.read_head()
        assert client.read_chunk() == EVENTS[0]
    assert list(upstream.wait_for_request("/x").headers) == [
        ("Host", f"127.0.0.1:{upstream.port}"),
        ("X-A", "1"),
    ]


def test_a_request_streams_from_the_first_byte(mitmdump: StartMitmdump, recorder: StartRecorder) -> None:
    upstream = recorder(json_reply(message()))
    proxy = start(mitmdump, upstream, RULES["path"])
    for number, (framing, first, after) in enumerate(
        (
            ("Content-Length: 12", b"first0", b"after0"),
            ("Transfer-Encoding: chunked", b"6\r\nfirst1\r\n", b"6\r\nafter1\r\n0\r\n\r\n"),
        )
    ):
        with Wire(proxy.port) as client:
            head = f"POST http://{OTHER}/x HTTP/1.1\r\nHost: {OTHER}\r\n{framing}\r\n\r\n"
            client.send(head.encode() + first)
            upstream.wait_for_bytes(b"first%d" % number)
            assert b"after%d" % number not in upstream.raw
            client.send(after)
            assert client.read_response().status == 200
        assert upstream.requests[number].body == b"first%dafter%d" % (number, number)


def test_an_upload_over_http2_reaches_an_http1_upstream_whole(
    mitmdump: StartMitmdump, authority: Authority, recorder: StartRecorder
) -> None:
    with Recorder(json_reply(message()), tls=authority, names=[OTHER], http2=False) as upstream:
        proxy = mitmdump(rules=RULES["host"], names={f"{OTHER}:443": upstream.port}, trust=authority.ca_file)
        with Wire(proxy.port) as wire:
            assert wire.connect(f"{OTHER}:443").status == 200
            wire.start_tls(OTHER, proxy.ca_cert, ["h2"])
            body = bytes(range(256)) * 200
            assert Http2Client(wire).request(pseudo_headers(OTHER, "/x"), body).status == 200
        assert upstream.wait_for_request("/x").body == body


def test_a_bounded_copy_is_kept_of_both_bodies(
    mitmdump: StartMitmdump, recorder: StartRecorder, tmp_path: Path
) -> None:
    upstream = recorder(Stream((b"a" * 4000, b"b" * 4000), gated=False))
    kept = tmp_path / "flows"
    proxy = start(mitmdump, upstream, RULES["host"], "-w", str(kept), "--set", "gateway_capture=5000")
    with Wire(proxy.port) as client:
        answer = client.request("POST", f"http://{OTHER}/x", headers_of(), b"c" * 9000)
    assert answer.body == b"a" * 4000 + b"b" * 4000
    proxy.stop()
    with kept.open("rb") as file:
        (flow,) = io.FlowReader(file).stream()
    assert isinstance(flow, http.HTTPFlow)
    assert flow.response is not None
    assert (flow.request.raw_content, flow.response.raw_content) == (b"c" * 5000, b"a" * 4000 + b"b" * 1000)
    assert flow.request.headers["x-api-key"] == CK


def test_modified_bodies_are_still_possible_where_the_user_asks_for_them(
    mitmdump: StartMitmdump, recorder: StartRecorder
) -> None:
    upstream = recorder(json_reply(message()))
    proxy = start(mitmdump, upstream, RULES["host"], "--set", "modify_body=|first|second")
    with Wire(proxy.port) as client:
        client.request("POST", f"http://{OTHER}/x", headers_of(), b"first")
    assert upstream.wait_for_request("/x").body == b"second"


@pytest.mark.parametrize("decrypts", ["rules", "all"])
def test_a_tunnel_to_a_host_that_cannot_be_reached_is_answered_with_the_cause(
    mitmdump: StartMitmdump, decrypts: str
) -> None:
    port = unused_port()
    option = f"gateway_intercept={decrypts}"
    proxy = mitmdump("--set", option, rules=RULES["host"], names={f"{OTHER}:443": port})
    for _ in range(2):
        with Wire(proxy.port) as client:
            answer = client.connect(f"{OTHER}:443")
            if decrypts == "all":  # the answer is inside the tunnel
                client.start_tls(OTHER, proxy.ca_cert)
                answer = client.request("GET", "/", [("Host", OTHER)])
        assert answer.status == 502
        assert b"the upstream refused the connection" in answer.body
    assert proxy.output().count(f"{OTHER}:443: the upstream refused the connection") == 1


def test_a_tunnel_that_is_not_decrypted_carries_anything(
    mitmdump: StartMitmdump, recorder: StartRecorder
) -> None:
    upstream = recorder(json_reply({}))
    proxy = mitmdump(
        "--set", "gateway_intercept=rules", rules=RULES["host"], names={f"{OTHER}:22": upstream.port}
    )
    with Wire(proxy.port) as client:
        assert client.connect(f"{OTHER}:22").status == 200
        client.send(b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n")
        assert client.read_response().status == 200


@pytest.mark.parametrize("decrypts", ["rules", "all"])
@pytest.mark.parametrize(
    "sent",
    [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"NICK somebody\r\n", b"get key\r\n", b"GET / HTTP\n"],
    ids=["HTTP/2", "IRC", "memcached", "HTTP/0.9"],
)
def test_a_tunnel_carries_other_protocols_of_text_as_they_are(
    mitmdump: StartMitmdump, decrypts: str, sent: bytes
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        names = {f"{OTHER}:50051": server.getsockname()[1]}
        proxy = mitmdump("--set", f"gateway_intercept={decrypts}", rules=RULES["host"], names=names)
        with Wire(proxy.port) as client:
            assert client.connect(f"{OTHER}:50051").status == 200
            client.send(sent)
            upstream, _ = server.accept()
            with upstream:
                upstream.settimeout(20)
                assert upstream.recv(4096) == sent
                upstream.sendall(b"answer")
                assert client.receive() == b"answer"


def test_http2_without_tls_in_a_tunnel_to_a_host_with_rules_goes_by_the_rules(
    mitmdump: StartMitmdump, recorder: StartRecorder
) -> None:
    upstream = recorder(json_reply(message()))
    proxy = mitmdump(rules=RULES["path"].replace("https://gw.test", upstream.url))
    with Wire(proxy.port) as client:
        assert client.connect(f"{OTHER}:80").status == 200
        answer = Http2Client(client).request(pseudo_headers(OTHER, "/v1/messages", scheme="http"), BODY)
    assert (answer.status, upstream.requests[0].target) == (200, "/v1/messages")


def test_a_response_that_breaks_off_arrives_broken(mitmdump: StartMitmdump, recorder: StartRecorder) -> None:
    upstream = recorder()
    proxy = start(mitmdump, upstream, RULES["host"])
    for body in (b"Content-Length: 100\r\n\r\nshort", b"Transfer-Encoding: chunked\r\n\r\n5\r\nshort\r\n"):
        upstream.script = Bytes(b"HTTP/1.1 200 OK\r\n" + body)
        with Wire(proxy.port) as client:
            client.send_request("GET", f"http://{OTHER}/x", headers_of())
            received = b"".join(iter(client.receive, b""))
        assert received.startswith(b"HTTP/1.1 200 ")
        assert received.endswith(body)


# ---- much at once ----

STREAMS = 500


@pytest.mark.usefixtures("many_files")
async def test_hundreds_of_event_streams_pass_at_once(mitmdump: StartMitmdump) -> None:
    gate = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + EVENTS[0])
        await gate.wait()
        writer.write(EVENTS[1])
        await writer.drain()
        writer.close()

    async def first_event(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"GET http://{OTHER}/sse HTTP/1.1\r\nHost: {OTHER}\r\n\r\n".encode())
        await reader.readuntil(EVENTS[0])
        return reader, writer

    server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=STREAMS)
    proxy = await asyncio.to_thread(
        mitmdump, rules=RULES["host"], names={f"{OTHER}:80": server.sockets[0].getsockname()[1]}
    )
    async with asyncio.timeout(60):
        clients = await asyncio.gather(*(first_event(proxy.port) for _ in range(STREAMS)))
        gate.set()
        await asyncio.gather(*(reader.readuntil(EVENTS[1]) for reader, _ in clients))
    for _, writer in clients:
        writer.close()
    server.close()


NGINX = """
daemon off; master_process off; pid {folder}/pid; error_log stderr;
events {{ }}
http {{
  access_log off; client_max_body_size 0; client_body_temp_path {folder}/in; proxy_temp_path {folder}/out;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  server {{ listen 127.0.0.1:{port}; root {folder}; location /up {{ return 204; }} }}
}}
"""
LARGE = 200 << 20


@pytest.fixture
def nginx(tmp_path: Path) -> Iterator[int]:
    """The port of an nginx that serves a large file."""
    if not shutil.which("nginx"):
        pytest.skip("nginx is not installed")
    folder, port = tmp_path / "nginx", unused_port()
    folder.mkdir()
    (folder / "conf").write_text(NGINX.format(folder=folder, port=port))
    with (folder / "large").open("wb") as file:
        file.truncate(LARGE)
    process = subprocess.Popen(["nginx", "-p", str(folder), "-c", str(folder / "conf")])
    while process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            break
    yield port
    process.terminate()
    process.wait()


def test_a_large_download_from_nginx_passes_in_little_memory(mitmdump: StartMitmdump, nginx: int) -> None:
    proxy = mitmdump(rules=RULES["host"], names={f"{OTHER}:80": nginx})
    before = peak_mb(proxy.process.pid)
    with socket.create_connection(("127.0.0.1", proxy.port)) as client:
        client.sendall(
            f"GET http://{OTHER}/large HTTP/1.1\r\nHost: {OTHER}\r\nConnection: close\r\n\r\n".encode()
        )
        size, buffer = 0, bytearray(1 << 20)
        while count := client.recv_into(buffer):
            size += count
    assert LARGE < size < LARGE + 1000
    # The kept copy of 8 MiB, and the pieces on their way.
    assert peak_mb(proxy.process.pid) - before < 60


@pytest.mark.parametrize("decrypts", ["rules", "all"])
def test_a_client_may_name_the_proxy_as_https(
    mitmdump: StartMitmdump, recorder: StartRecorder, decrypts: str
) -> None:
    upstream = recorder(json_reply({}))
    names = {f"{OTHER}:22": upstream.port}
    proxy = mitmdump("--set", f"gateway_intercept={decrypts}", rules=RULES["host"], names=names)
    with Wire(proxy.port) as client:
        client.start_tls("localhost", proxy.ca_cert)
        assert client.connect(f"{OTHER}:22").status == 200
        assert client.request("GET", "/x", [("Host", OTHER)]).status == 200


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_a_proxy_that_a_client_has_as_its_base_url_says_so(mitmdump: StartMitmdump, host: str) -> None:
    proxy = mitmdump(rules=RULES["host"])
    with Wire(proxy.port) as client:
        answer = client.request("POST", "/v1/messages", [("Host", f"{host}:{proxy.port}")], BODY)
    assert (answer.status, answer.header("x-should-retry")) == (502, "false")
    assert (
        b"this listener is an HTTPS proxy, and a request must not come back to it; set HTTPS_PROXY, "
        in answer.body
    )


def test_a_reverse_listener_that_a_client_has_as_its_proxy_says_so(mitmdump: StartMitmdump) -> None:
    proxy = mitmdump(rules=RULES["path"], modes=[f"reverse:https://{OTHER}"])
    with Wire(proxy.port) as client:
        answer = client.connect(f"{OTHER}:443")
    assert answer.status == 400
    assert b"this listener is not a proxy; name it in the client's base URL" in answer.body
    assert "refused with 400: mitm-gateway: this listener is not a proxy" in proxy.output()


@pytest.mark.parametrize("hello", [b"\x05\x01\x00", b"\x04\x01\x01\xbb\x01\x02\x03\x04\x00"], ids=["5", "4"])
def test_a_client_that_speaks_socks_is_closed_and_logged_once(mitmdump: StartMitmdump, hello: bytes) -> None:
    proxy = mitmdump(rules=RULES["host"])
    for _ in range(2):
        with Wire(proxy.port) as client:
            client.send(hello)
            assert client.receive() == b""
    assert proxy.output().count("a client speaks SOCKS, and this is an HTTP listener; write http://") == 1
