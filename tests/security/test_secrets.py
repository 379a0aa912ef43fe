"""Acceptance cases 50 to 55: keys in recordings, in logs, in helpers and in files."""

import os
import shlex
import signal
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from mitm_gateway.credentials.store import Credentials
from mitm_gateway.rules.load import parse_rules
from support.answers import Close, Hang, Reply, Stream, message_events
from support.constants import API, CK, ENV, GW, JSON
from support.fixture_types import StartMitmdump, StartStage
from support.http_client import Wire, pseudo_headers
from support.mitmweb import Flow, Web
from support.recorder import Recorder
from support.security_stage import API_HEADERS, BODY, RULES, Stage, answers, assert_absent
from support.table import table

e2e = pytest.mark.e2e
SECRET_ARGUMENT = "argument-of-the-helper"


@e2e
@pytest.mark.parametrize(
    ("end", "options"),
    [(signal.SIGINT, ()), (signal.SIGTERM, ("-v", "--set", "termlog_verbosity=debug"))],
    ids=["interrupt", "terminate-verbose"],
)
def test_50_no_recording_contains_a_key(
    stage_with: StartStage, end: signal.Signals, options: tuple[str, ...]
) -> None:
    stage = stage_with(*options)
    assert stage.ask(f"/v1/messages?api_key={CK}").status == 200
    head = pseudo_headers(API)
    assert stage.http2().request([*head, ("x-api-key", CK)], BODY).status == 200
    stage.gw.script = Close()
    assert stage.ask().status == 502
    stage.gw.script = Stream(message_events("gw-model"))
    with stage.tunnel() as leaving:
        leaving.send_request("POST", "/v1/messages", API_HEADERS, b'{"model":"claude-x","stream":true}')
        leaving.read_head()
        leaving.read_chunk()
    stage.gw.wait_for_hangup()
    stage.ask(headers=[("Host", "evil.test"), ("x-api-key", CK), ("Cookie", f"a={CK}")])
    # And one that is still under way at the end.
    stage.gw.script = Hang()
    hanging = stage.tunnel()
    seen = len(stage.gw.requests)
    hanging.send_request("POST", f"/v1/messages?key={CK}", API_HEADERS, b'{"model":"claude-x"}')
    stage.gw.wait_for_request(count=seen + 1)
    stage.proxy.process.send_signal(end)
    stage.proxy.process.wait(20)
    assert stage.flows.stat().st_size > 0
    for file in (stage.flows, stage.har, stage.log):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file


@e2e
def test_50_an_unfinished_response_is_recorded_without_an_echoed_key(stage_with: StartStage) -> None:
    stage = stage_with()
    stage.gw.script = Stream(message_events("gw-model"), headers=(("X-Seen", f"{GW} {CK}"),))
    client = stage.tunnel()
    client.send_request("POST", "/v1/messages", API_HEADERS, b'{"model":"claude-x","stream":true}')
    assert client.read_head()[0] == 200
    client.tape.clear()  # what an upstream echoes, its client gets
    stage.proxy.process.send_signal(signal.SIGTERM)
    stage.proxy.process.wait(20)
    assert b"X-Seen" in stage.flows.read_bytes()


@e2e
@table("status", [200, 204, 307, 401])
def test_50_a_response_without_a_body_is_recorded_without_an_echoed_key(stage: Stage, status: int) -> None:
    stage.gw.script = Reply(
        status, b"", (("Location", f"https://evil.test/?key={GW}"), ("X-Token", "another's"))
    )
    answer = stage.ask()
    assert answer.status == status
    assert answer.header("location") == "https://evil.test/?key=****3210"
    assert answer.header("x-token") == "another's"


NOT_TEXT = (
    (b"/v1/m\xe9?x=\xff", b"x-a: b", b"{}"),
    (b"/v1/messages", b"x-a: \xff\xfe", b"{}"),
    (b"/v1/messages", b"x-a: b", rb'{"model":"\ud800"}'),
)


@e2e
def test_50_bytes_that_are_not_text_are_recorded(stage_with: StartStage) -> None:
    # Text that cannot be encoded would keep the flow, and the lines that are written with it, out of the files.
    stage = stage_with()
    for number, (target, header, body) in enumerate(NOT_TEXT):
        client = stage.tunnel()
        client.send(
            b"POST %s HTTP/1.1\r\nHost: %s\r\nx-marked: here%d\r\n%s\r\nContent-Length: %d\r\n\r\n%s"
            % (target, API.encode(), number, header, len(body), body)
        )
        assert client.read_response().status == 200
    stage.proxy.stop()
    kept = stage.flows.read_bytes()
    assert all(b"here%d" % number in kept for number in range(len(NOT_TEXT)))
    assert len(stage.log.read_text(encoding="utf-8").splitlines()) == len(NOT_TEXT)


@e2e
def test_50_a_key_in_a_second_place_is_not_recorded(mitmdump: StartMitmdump, tmp_path: Path) -> None:
    # In what is remembered for a replay only the headers that hold keys were masked.
    flows = tmp_path / "flows"
    with Recorder(answers) as upstream:
        proxy = mitmdump(
            *("-w", str(flows), "--set", "flow_detail=4"),
            rules=RULES.replace("https://gw.test", upstream.url),
            modes=[f"reverse:https://{API}"],
            env=ENV,
        )
        headers = [("Host", "localhost"), JSON, ("x-api-key", CK), ("X-Title", f"by {CK}")]
        with Wire(proxy.port) as client:
            assert client.request("POST", f"/v1/ended?session={CK}", headers, BODY).status == 200
            upstream.script = Hang()
            client.send_request("POST", f"/v1/waiting?session={CK}", headers, BODY)
            upstream.wait_for_request("/v1/waiting")
            proxy.stop()
    assert b"/v1/ended" in flows.read_bytes()
    assert b"/v1/waiting" in flows.read_bytes()
    assert_absent(flows.read_bytes(), "flows")
    assert_absent(proxy.output().encode(), "output")


@e2e
def test_51_mitmweb_shows_no_key_after_completion(shared_web: Stage) -> None:
    assert shared_web.ask(f"/v1/messages?key={CK}").status == 200
    shared_web.ask(headers=[("Host", "evil.test"), ("x-api-key", CK)])
    web = Web(shared_web.proxy)
    flows = web.get("/flows")
    assert flows.status_code == 200
    assert len(flows.json()) >= 2
    assert_absent(flows.content, "mitmweb shows it")
    for flow in flows.json():
        for view in ("request/content.data", "request/content/auto.json", "response/content.data"):
            assert_absent(web.get(f"/flows/{flow['id']}/{view}").content, "mitmweb shows it")
    assert_absent(web.get("/events").content, "the event log holds it")
    assert_absent(web.get("/flows/dump").content, "a saved file holds it")


@e2e
def test_51_a_replay_from_mitmweb_uses_the_gateways_key(shared_web: Stage) -> None:
    assert shared_web.ask().status == 200
    first, web = shared_web.asked, Web(shared_web.proxy)
    sent = [flow for flow in web.get("/flows").json() if flow["request"]["path"] == "/v1/messages"]
    seen = len(shared_web.gw.requests)
    assert web.post(f"/flows/{sent[-1]['id']}/replay").status_code == 200
    again = shared_web.gw.wait_for_request(count=seen + 1)
    assert (again.target, again.body) == (first.target, first.body)
    assert again.values("authorization") == [f"Bearer {GW}"]
    assert again.values("x-api-key") == []


@e2e
@pytest.mark.parametrize("moment", ["waiting", "streaming"])
def test_51_undoing_an_edit_restores_no_key(shared_web: Stage, moment: str) -> None:
    stage, web = shared_web, Web(shared_web.proxy)
    known = {flow["id"] for flow in web.get("/flows").json()}
    echoing = Stream(message_events("gw-model"), headers=(("X-Seen", f"{GW} {CK}"),))
    stage.gw.script = echoing if moment == "streaming" else Hang()
    client, seen = stage.tunnel(), len(stage.gw.requests)
    client.send_request("POST", f"/v1/messages?key={CK}", API_HEADERS, b'{"model":"claude-x","stream":true}')
    stage.gw.wait_for_request(count=seen + 1)
    if moment == "streaming":
        client.read_head()
    edited = next(
        flow["id"]
        for flow in web.get("/flows").json()
        if flow["id"] not in known and flow["request"]["method"] == "POST"
    )
    # mitmproxy keeps the flow as it stands before the first edit, and saves that with the flow.
    assert web.put(f"/flows/{edited}", {"comment": "edited"}).status_code == 200
    client.tape.clear()
    client.close()
    stage.gw.wait_for_hangup()
    stage.gw.script = answers
    assert stage.ask().status == 200
    assert_absent(web.get("/flows/dump").content, "a saved file holds it")
    assert web.post(f"/flows/{edited}/revert").status_code == 200
    assert_absent(web.get("/flows").content, "mitmweb shows it")


@e2e
def test_51_no_copy_of_a_request_that_waits_holds_a_key(shared_web: Stage, tmp_path: Path) -> None:
    stage, web = shared_web, Web(shared_web.proxy)
    assert web.set_option("save_stream_file", str(tmp_path / "switched")).status_code == 200
    stage.gw.script, seen, client = Hang(), len(stage.gw.requests), stage.tunnel()
    client.send_request("POST", f"/v1/messages/waiting?key={CK}", API_HEADERS, BODY)
    stage.gw.wait_for_request(count=seen + 1)
    waiting, copies = "~u /waiting", [each["id"] for each in web.get("/flows").json() if is_waiting(each)]
    commands = (
        *(("export.file", form, waiting, str(tmp_path / form)) for form in ("curl", "httpie", "raw", "raw_request")),
        ("cut.save", waiting, ",".join(CUTS), str(tmp_path / "cut")),
        ("save.file", waiting, str(tmp_path / "saved")),
        ("flow.mark", waiting, ":star:"),
        ("flow.comment", waiting, "waits"),
    )  # fmt: skip
    done = {words[:2]: web.command(*words) for words in commands}
    copies.append(web.post(f"/flows/{copies[0]}/duplicate").text)
    assert web.set_option("save_stream_file", None).status_code == 200
    assert [words for words, result in done.items() if "error" in result] == []
    # mitmproxy replays no request under way; its copy is a new request, which the upstream gets with the key.
    web.command("replay.client", waiting)
    assert stage.gw.wait_for_request(count=seen + 2).values("authorization") == [f"Bearer {GW}"]
    assert {each.name for each in tmp_path.iterdir()} >= {
        "switched", "curl", "httpie", "raw_request", "cut", "saved",
    }  # fmt: skip
    for file in (each for each in tmp_path.iterdir() if each.is_file()):
        assert b"waiting" in file.read_bytes(), file
        assert_absent(file.read_bytes(), file.name)
    pages = ["", "/dump", *(f"/{each}/request/content.data" for each in copies)]
    for page in ("/events", "/state", "/options", *(f"/flows{page}" for page in pages)):
        assert_absent(web.get(page).content, page)
    client.tape.clear()
    client.close()
    stage.gw.wait_for_hangup()


CUTS = ("request.path", "request.header[authorization]", "request.header[x-api-key]", "request.raw_content")


def is_waiting(flow: Flow) -> bool:
    return "/waiting" in flow["request"]["path"] and flow["request"]["method"] == "POST"


@e2e
@table(
    ("option", "value"),
    [
        ("ssl_insecure", True),
        ("validate_inbound_headers", False),
        ("stream_large_bodies", "2k"),
        ("keep_host_header", False),
        ("ignore_hosts", [API]),
        ("tcp_hosts", [API]),
        ("allow_hosts", ["evil"]),
        ("map_remote", [f"|https://{API}|https://evil.test"]),
        ("gateway_rules", "/nowhere/rules.yaml"),
        ("gateway_clients", "/nowhere/clients"),
        ("gateway_body_limit", "much"),
    ],
)
def test_11_options_set_in_mitmweb_are_rolled_back(shared_web: Stage, option: str, value: object) -> None:
    web = Web(shared_web.proxy)
    before = web.get("/options").json()[option]["value"]
    assert web.set_option(option, value).status_code == 400
    assert web.get("/options").json()[option]["value"] == before


def helper(tmp_path: Path, body: str) -> str:
    script = tmp_path / "helper.sh"
    script.write_text(f"#!/bin/sh\n{body}\n")
    script.chmod(0o700)
    return RULES.replace("{env: GW_KEY}", f"{{command: [{script}, --token={SECRET_ARGUMENT}], timeout: 2s}}")


@e2e
@pytest.mark.parametrize(("stream", "code"), [("stderr", 1), ("stdout", 0)])
def test_52_53_a_failing_helper_reveals_nothing(
    stage_with: StartStage, tmp_path: Path, stream: str, code: int
) -> None:
    to = " >&2" if stream == "stderr" else "; echo second line"
    stage = stage_with("-v", rules=helper(tmp_path, f"echo {shlex.quote(GW)}{to}\nexit {code}"))
    stage.ends_refusing = True
    answer = stage.ask()
    stage.assert_refused(answer, 424)
    assert SECRET_ARGUMENT.encode() not in answer.body
    assert SECRET_ARGUMENT not in stage.proxy.output()


@e2e
def test_54_a_helper_that_hangs_runs_once_and_delays_no_other_request(
    stage_with: StartStage, tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    stage = stage_with(rules=helper(tmp_path, f"echo run >> {runs}\nexec sleep 60"))
    stage.ends_refusing = True
    clients = [stage.tunnel() for _ in range(5)]
    for client in clients:
        client.send_request("POST", "/v1/messages", API_HEADERS, b'{"model":"claude-x"}')
    with stage.plain() as other:
        assert other.request("GET", "http://evil.test/", [("Host", "evil.test")]).status == 200
    with pytest.raises(TimeoutError):  # the others still wait
        clients[0].receive(0.01)
    stage.warmed_up()
    for client in clients:
        stage.assert_refused(client.read_response(), 502)
    assert runs.read_text() == "run\n"


@pytest.mark.parametrize("kind", ["pipe", "device", "directory", "large", "socket"])
async def test_55_a_key_file_that_is_not_a_small_regular_file_is_an_error(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "key"
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "device":
            path = Path("/dev/zero")
        case "directory":
            path.mkdir()
        case "large":
            path.write_bytes(b"a" * (1 << 20))
        case "socket":
            path = Path("/proc/self/fd/0")
    with pytest.raises(Exception, match="credential"):
        await credentials_of(path).get("gw")


@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o400, False), (0o644, True), (0o640, True)])
async def test_55_a_key_file_that_others_can_read_causes_a_warning(
    tmp_path: Path, mode: int, warned: bool
) -> None:
    path = tmp_path / "key"
    warnings: list[str] = []
    path.write_text("abc\n")
    path.chmod(mode)
    found = await credentials_of(path, warnings.append).get("gw")
    assert found.secret.reveal() == "abc"
    assert bool(warnings) == warned
    assert "abc" not in "".join(warnings)


def credentials_of(path: Path, warn: Callable[..., None] = lambda *_: None) -> Credentials:
    text = RULES.replace("{env: GW_KEY}", f"{{file: {path}}}")
    ruleset = parse_rules(text.encode(), "rules.yaml", {})

    def told(text: str, *arguments: object) -> None:
        warn(text % arguments if arguments else text)

    return Credentials(ruleset.credentials, warn=told)
