"""The speed patches remove nothing: mitmproxy's features work beside the gateway.

Each feature is switched on at start and, in mitmweb, while requests are being served.
"""

import base64
import gc
import platform
import re
import threading
from pathlib import Path
from typing import Any

import pytest
from mitmproxy import http, io

from support.answers import Reply
from support.command import Command
from support.fixture_types import StartMitmdump, StartRecorder
from support.http_client import Response, Wire
from support.mitmdump import Mitmdump
from support.mitmweb import Web
from support.program import unused_port
from support.recorder import Recorder
from support.waiting import wait_until

pytestmark = pytest.mark.e2e

RULES = "rules: [{name: r, match: {host: 127.0.0.1}, auth: {scheme: keep}}]"
# Masked cookies in a finished flow are all that stickycookie would see.
REVEAL = ("--set", "gateway_reveal=true")
LATE = """
class Late:
    def responseheaders(self, flow):
        flow.response.headers["x-late"] = "1"
addons = [Late()]
"""


def baked(seen: Any) -> Reply:
    return Reply(200, b"from upstream", (("Set-Cookie", "crumb=1; path=/"),))


def ask(proxy: Mitmdump, path: str = "/v1/x", extra: tuple[tuple[str, str], ...] = ()) -> Response:
    with Wire(proxy.port) as wire:
        return wire.request("GET", path, [("Host", "localhost"), *extra])


def options(folder: Path) -> dict[str, Any]:
    """A feature each, with what it needs."""
    (folder / "local").write_text("from the disk")
    (folder / "late.py").write_text(LATE)
    return {
        "modify_headers": ["/~q/x-added/1"],
        "map_local": [f"|/mapped|{folder / 'local'}"],
        "block_list": ["|/blocked|418"],
        "stickycookie": ".*",
        "scripts": [str(folder / "late.py")],
        "save_stream_file": str(folder / "saved"),
        "hardump": str(folder / "saved.har"),
        "anticache": True,
        "anticomp": True,
        "upstream_auth": "user:word",
    }


def check(proxy: Mitmdump, upstream: Recorder) -> None:
    first = ask(proxy)
    assert (first.status, first.body, first.header("x-late")) == (200, b"from upstream", "1")
    ask(proxy, "/v1/second", (("If-None-Match", '"1"'), ("Accept-Encoding", "gzip")))
    seen = upstream.wait_for_request("/v1/second")
    assert seen.header("x-added") == "1"
    assert (seen.header("if-none-match"), seen.header("accept-encoding")) == (None, "identity")
    assert seen.header("authorization") == "Basic " + base64.b64encode(b"user:word").decode()
    assert seen.header("cookie") == "crumb=1"
    assert ask(proxy, "/mapped").body == b"from the disk"
    assert ask(proxy, "/blocked").status == 418


def saved(file: Path) -> list[str]:
    with file.open("rb") as stream:
        return [
            flow.request.path for flow in io.FlowReader(stream).stream() if isinstance(flow, http.HTTPFlow)
        ]


def test_features_that_are_on_at_start_work(
    recorder: StartRecorder, mitmdump: StartMitmdump, tmp_path: Path
) -> None:
    upstream = recorder(baked)
    arguments = []
    for name, value in options(tmp_path).items():
        for each in value if isinstance(value, list) else [value]:
            value_text = str(each).lower() if isinstance(each, bool) else each
            arguments += ["-s", each] if name == "scripts" else ["--set", f"{name}={value_text}"]
    proxy = mitmdump(
        *arguments, *REVEAL, "--set", "flow_detail=2", rules=RULES, modes=[f"reverse:{upstream.url}"]
    )
    check(proxy, upstream)
    proxy.wait_for_output(r"client connect")
    proxy.wait_for_output(r"GET .*/v1/second")
    proxy.wait_for_output(r"(?i)x-late: 1")
    proxy.stop()
    assert "/v1/second" in saved(tmp_path / "saved")
    assert "/v1/second" in (tmp_path / "saved.har").read_text()


def test_features_that_are_switched_on_while_running_work(
    recorder: StartRecorder, mitmdump: StartMitmdump, tmp_path: Path
) -> None:
    upstream = recorder(baked)
    proxy = mitmdump(*REVEAL, rules=RULES, modes=[f"reverse:{upstream.url}"], web=True)
    assert ask(proxy).header("x-late") is None
    web = Web(proxy)
    scripts = web.get("/options").json()["scripts"]["value"]
    for name, value in options(tmp_path).items():
        wanted = [*scripts, *value] if name == "scripts" else value
        assert web.set_option(name, wanted).status_code == 200, name
    check(proxy, upstream)
    paths = wait_until(lambda: [flow["request"]["path"] for flow in web.get("/flows").json()])
    assert {"/v1/second", "/mapped"} <= set(paths)
    wait_until(lambda: "client connect" in web.get("/events").text)
    assert web.set_option("save_stream_file", None).status_code == 200
    assert "/v1/second" in saved(tmp_path / "saved")
    proxy.stop()
    assert "/v1/second" in (tmp_path / "saved.har").read_text()


def test_an_intercepted_request_is_held_until_it_is_resumed(
    recorder: StartRecorder, mitmdump: StartMitmdump
) -> None:
    upstream = recorder(baked)
    proxy = mitmdump(*REVEAL, rules=RULES, modes=[f"reverse:{upstream.url}"], web=True)
    ask(proxy)
    web = Web(proxy)
    assert web.set_option("intercept", "~u /held & ~q").status_code == 200
    answers: list[Response] = []
    client = threading.Thread(target=lambda: answers.append(ask(proxy, "/held")))
    client.start()

    def held() -> list[str]:
        return [flow["id"] for flow in web.get("/flows").json() if flow["intercepted"]]

    [flow] = wait_until(held)
    assert not answers
    assert web.post(f"/flows/{flow}/resume").status_code < 300
    client.join(20)
    assert [answer.status for answer in answers] == [200]


MAPPED = """
rules:
  - {name: gw, match: {host: 127.0.0.1, path: /v1/messages}, auth: {scheme: keep}, models: {map: {mine: theirs}}}
"""


def test_requests_that_are_sent_ahead_are_answered_one_after_the_other(
    recorder: StartRecorder, mitmdump: StartMitmdump
) -> None:
    answer = b'{"id":"m","model":"theirs","at":"%s"}'

    def reply(seen: Any) -> Reply:
        return Reply(200, answer % seen.header("x-number").encode(), (("Content-Type", "application/json"),))

    upstream = recorder(reply)
    proxy = mitmdump(rules=MAPPED, modes=[f"reverse:{upstream.url}"])
    body = b'{"model":"mine"}'

    def request(path: str, number: int) -> bytes:
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nX-Number: {number}\r\nContent-Length: {len(body)}\r\n\r\n"
        return head.encode() + body

    wanted = [("/v1/messages", 200), ("/nowhere", 404)] * 2 + [("/v1/messages", 200)]
    with Wire(proxy.port) as wire:
        wire.send(b"".join(request(path, number) for number, (path, _) in enumerate(wanted)))
        answers = [wire.read_response("POST") for _ in wanted]
    assert [got.status for got in answers] == [status for _, status in wanted]
    for number, got in enumerate(answers):
        if got.status == 200:
            assert got.body == answer.replace(b"theirs", b"mine") % str(number).encode()
    assert [seen.body for seen in upstream.requests] == [b'{"model":"theirs"}'] * 3


ALIVE = """
import gc, weakref
from mitmproxy import ctx
flows = []
class Alive:
    def running(self):
        gc.disable()
    def requestheaders(self, flow):
        ctx.master.commands.call("gateway.stats")  # records what has ended
        print("alive:", sum(each() is not None for each in flows), flush=True)
        flows.append(weakref.ref(flow))
addons = [Alive()]
"""


def test_a_flow_that_has_ended_is_freed_without_a_collection(
    recorder: StartRecorder, mitmdump: StartMitmdump, tmp_path: Path
) -> None:
    upstream = recorder(Reply(200, b'{"id":"m","model":"theirs"}', (("Content-Type", "application/json"),)))
    (tmp_path / "alive.py").write_text(ALIVE)
    proxy = mitmdump("-s", str(tmp_path / "alive.py"), rules=MAPPED, modes=[f"reverse:{upstream.url}"])
    with Wire(proxy.port) as wire:
        for path in ("/v1/messages", "/nowhere", "/v1/messages", "/v1/messages"):
            wire.request("POST", path, [("Host", "localhost")], b'{"model":"mine"}')
    proxy.stop()
    assert re.findall(r"alive: (\d+)", proxy.output()) == ["0"] * 4


MEMORY = """
import gc, resource
class Memory:
    def running(self):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(20):
            bytes(8 << 20)
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
        print("memory:", gc.get_threshold()[0], faults, flush=True)
addons = [Memory()]
"""
_MEMORY = r"memory: (\d+) (\d+)"


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's malloc is tuned")
def test_memory_is_tuned_in_the_gateways_own_process_only(mitmdump: StartMitmdump, tmp_path: Path) -> None:
    script = tmp_path / "memory.py"
    script.write_text(MEMORY)
    proxy = mitmdump("-s", str(script), rules=RULES)
    assert proxy.wait_for_output(_MEMORY)[1] == str(gc.get_threshold()[0])
    command = Command(tmp_path / "home")
    command.write_rules(RULES)
    served = command.start("serve", "--port", str(unused_port()), "--", "-s", str(script))
    assert served.stdout is not None
    try:
        lines = iter(served.stdout.readline, "")
        found = next(match for line in lines if (match := re.search(_MEMORY, line)))
    finally:
        served.terminate()
        served.communicate()
    assert found[1] == "20000"
    # 8 MiB have 2,048 pages; a block that is mapped afresh each time takes them twenty times.
    assert int(found[2]) < 2 * 2048 + 500


SEEN = """
class Seen:
    def response(self, flow):
        print("seen:", flow.marked, flow.comment, flow.metadata["gateway"]["status"], flush=True)
addons = [Seen()]
"""


def test_an_addon_behind_the_gateway_sees_what_it_noted(
    recorder: StartRecorder, mitmdump: StartMitmdump, tmp_path: Path
) -> None:
    upstream = recorder(Reply(200, b'{"id":"m","model":"theirs"}', (("Content-Type", "application/json"),)))
    (tmp_path / "seen.py").write_text(SEEN)
    proxy = mitmdump("-s", str(tmp_path / "seen.py"), rules=MAPPED, modes=[f"reverse:{upstream.url}"])
    with Wire(proxy.port) as wire:
        wire.request("POST", "/v1/messages", [("Host", "localhost")], b'{"model":"mine"}')
    proxy.wait_for_output(r"seen: :white_check_mark: mine → theirs, gw, 200, .* 200")
