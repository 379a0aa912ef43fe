"""A running Envoy with an exported configuration: the admin pages, sizes, upgrades and memory."""

import contextlib
import socket

import httpx
import pytest

from support.answers import Bytes, Reply
from support.constants import API
from support.envoy import Envoy
from support.fixture_types import StartEnvoy, StartOneEnvoy, StartRecorder
from support.http_client import Wire
from support.one_rule import ask, error_of, rules
from support.process_figures import peak_mb
from support.program import unused_port
from support.waiting import wait_until

pytestmark = pytest.mark.e2e


PAGES = (
    "/",
    "/config_dump",
    "/certs",
    "/clusters",
    "/logging?level=trace",
    "/quitquitquit",
    "/stats",
    "/memory",
)


def test_the_admin_pages_and_the_metrics_listener_show_readiness_and_metrics_only(envoy: StartEnvoy) -> None:
    metrics = unused_port()
    proxy = envoy(rules("http://127.0.0.1:9"), metrics=("127.0.0.1", metrics))
    for port, status in ((proxy.admin_port, 403), (metrics, 404)):
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, verify=False) as client:
            for path in (*PAGES, "/ready/../config_dump"):
                assert client.post(path).status_code == status, path
                assert client.get(path).status_code == status, path
            assert client.get("/ready").status_code == 200
            assert "envoy_http_downstream_rq_total" in client.get("/stats/prometheus").text


def test_the_limit_of_bodies_does_not_depend_on_the_conditions_of_rules(
    envoy: StartEnvoy, recorder: StartRecorder
) -> None:
    upstream = recorder(Reply(200, b"{}"))
    maps = f"upstream: {upstream.url}, models: {{default: gw-model}}"
    by_path, by_model = f"host: {API}, path: /path/**", f'host: {API}, model: "*"'
    proxy = envoy(
        f"rules: [{{match: {{{by_path}}}, {maps}}}, {{match: {{{by_model}}}, {maps}}}]", body_limit=4 << 20
    )
    chunked = b"%x\r\n%s\r\n0\r\n\r\n" % (3 << 20, b'{"model":"claude"}'.ljust(3 << 20))
    for target in ("/path/x", "/model/x"):
        for size in (1 << 20, 3 << 20):
            body = b'{"model":"claude","x":"%s"}' % (b"x" * size)
            assert ask(proxy, target=target, body=body).status == 200, size
        assert ask(proxy, ("Transfer-Encoding", "chunked"), target=target, body=chunked).status == 200
        # Only announced: Envoy closes the connection of a client that is still sending.
        length = ("Content-Length", str((4 << 20) + 1))
        assert ask(proxy, length, target=target, body=b"").status == 413


def test_a_head_over_128_kib_is_refused(one_envoy: StartOneEnvoy) -> None:
    upstream, proxy = one_envoy()
    for size in (60, 120):
        assert ask(proxy, ("x-a", "a" * size * 1024)).status == 200, size
    refused = ask(proxy, ("x-a", "a" * 130 * 1024))
    assert refused.status == 431
    assert "131072 bytes" in error_of(refused)
    assert len(upstream.requests) == 2


def test_an_upgrade_to_anything_but_websocket_is_removed(one_envoy: StartOneEnvoy) -> None:
    upstream, proxy = one_envoy(more="models: {default: gw-model}")
    for value in ("foo", "h2c", "websockets", "webs", "w"):
        answer = ask(proxy, ("Connection", "Upgrade"), ("Upgrade", value), body=b'{"model":"claude"}')
        assert answer.status == 200, value
        asked = upstream.requests[-1]
        assert asked.header("upgrade") is None, value
        assert asked.json == {"model": "gw-model"}


def test_an_unrequested_upgrade_is_not_relayed(one_envoy: StartOneEnvoy) -> None:
    head = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: foo\r\nConnection: Upgrade\r\n\r\n"
    _, proxy = one_envoy(Bytes(head + b"raw"))
    for headers in ((), (("Connection", "Upgrade"), ("Upgrade", "foo"))):
        answer = ask(proxy, *headers)
        assert answer.status == 502
        assert "switched protocols" in error_of(answer)


def test_unfinished_heads_fill_the_memory_up_to_a_bound(one_envoy: StartOneEnvoy) -> None:
    limit = 96 << 20
    _, proxy = one_envoy(max_heap=limit)
    head = b"GET /v1/x HTTP/1.1\r\nHost: localhost\r\n" + b"x-a: %s\r\n" % (b"a" * 1000) * 95
    with contextlib.ExitStack() as open_:
        for _ in range(1500):
            open_.enter_context(Wire(proxy.port)).send(head)
        assert memory_of(proxy) < 1.2 * limit
    # until it has returned the memory, and noticed
    wait_until(lambda: status_of(proxy) == 200, lambda: memory_of(proxy))


def test_bodies_that_have_begun_fill_the_memory_up_to_a_bound(one_envoy: StartOneEnvoy) -> None:
    limit = 128 << 20
    upstream, proxy = one_envoy(more="models: {default: gw-model}", max_heap=limit)
    head = b"POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: 60000000\r\n\r\n{"
    with contextlib.ExitStack() as open_:
        sockets = [
            open_.enter_context(socket.create_connection(("127.0.0.1", proxy.port))) for _ in range(50)
        ]
        for each in sockets:
            each.sendall(head)
        for each in sockets:
            each.settimeout(1)
            with contextlib.suppress(OSError):
                each.sendall(b" " * (8 << 20))
        assert peak_mb(proxy.process.pid) < 2 * limit / (1 << 20)
        # until the requests without progress have been ended
        wait_until(lambda: status_of(proxy) == 200, lambda: memory_of(proxy))
    assert len(upstream.requests) == 1


def status_of(proxy: Envoy) -> int | None:
    """Return the status of a request's answer; None where there is none."""
    with contextlib.suppress(OSError):
        return ask(proxy).status
    return None


def memory_of(proxy: Envoy) -> float:
    """Return the bytes that Envoy has allocated."""
    text = httpx.get(f"http://127.0.0.1:{proxy.admin_port}/stats/prometheus", verify=False).text
    line = next(line for line in text.splitlines() if line.startswith("envoy_server_memory_allocated{"))
    return float(line.split()[-1])
