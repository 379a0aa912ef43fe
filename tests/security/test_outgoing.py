"""Acceptance cases 29 to 39 and 43: the keys and bodies of outgoing requests, and when one may leave."""

import contextlib
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from mitm_gateway.text.redact import normal_name
from support.answers import Bytes
from support.constants import API, CK, CK_MARK, CLIENT_KEY, GW, JSON, ROOT, UPGRADE
from support.fixture_types import StartMitmdump, StartStage
from support.http_client import pseudo_headers
from support.program import unused_port
from support.security_stage import API_HEADERS, BODY, RULES, Client, Stage, assert_absent
from support.table import table
from support.waiting import wait_until

pytestmark = pytest.mark.e2e

AUTH = {"authorization", "xapikey", "apikey", "xgoogapikey", "anthropicapikey", "ocpapimsubscriptionkey",
        "proxyauthorization", "cookie"}  # fmt: skip


def auth_fields(stage: Stage) -> list[tuple[str, str]]:
    """Every header of the last request upstream that can hold a key."""
    return [(name, value) for name, value in stage.asked.headers if normal_name(name) in AUTH]


def test_29_a_large_body_is_forwarded_by_a_rule_that_does_not_read_it(stage_with: StartStage) -> None:
    text = RULES.replace("    models: {map: {claude-x: gw-model}}\n", "")
    stage = stage_with("--set", "stream_large_bodies=2k", rules=text, ready=BODY)
    for size in (2047, 2048, 2049, 5000):
        body = b'{"x":"' + b"a" * (size - 8) + b'"}'
        assert stage.ask(body=body).status == 200
        assert stage.asked.body == body
        assert auth_fields(stage) == [("Authorization", f"Bearer {GW}")]


STREAMING = """
class Streaming:
    def requestheaders(self, flow):
        flow.request.stream = True

addons = [Streaming()]
"""


def test_30_a_refused_request_that_another_addon_streams_is_answered(
    stage_with: StartStage, tmp_path: Path
) -> None:
    other = tmp_path / "streaming.py"
    other.write_text(STREAMING)
    stage = stage_with("-s", str(other))
    body = b"a" * (5 << 20)
    chunked = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    for framing, sent in (
        (("Content-Length", str(len(body))), body),
        (("Transfer-Encoding", "chunked"), chunked),
    ):
        client = stage.tunnel()
        client.send_request("POST", "/v1/../x", [("Host", API), CLIENT_KEY, framing])
        with contextlib.suppress(ConnectionError):
            client.send(sent)
        stage.assert_refused(client.read_response(), 400)


def test_31_a_request_waits_for_a_slow_helper(stage_with: StartStage, tmp_path: Path) -> None:
    helper = tmp_path / "helper.sh"
    helper.write_text(f"#!/bin/sh\nsleep 1\necho {GW}\n")
    helper.chmod(0o700)
    stage = stage_with(rules=RULES.replace("{env: GW_KEY}", f"{{command: [{helper}]}}"))
    began = time.monotonic()
    assert stage.ask().status == 200
    assert time.monotonic() - began > 0.9
    assert auth_fields(stage) == [("Authorization", f"Bearer {GW}")]


def test_31_requests_during_the_start_never_leave_with_the_clients_key(stage_with: StartStage) -> None:
    """A client repeats its request from before the port opens."""

    port = unused_port()
    stage_with("-p", str(port), modes=["regular"], wait=False)
    answers = []
    deadline = time.monotonic() + 30
    while 200 not in answers and time.monotonic() < deadline:
        try:
            with Client(port) as client:
                answer = client.request("GET", f"http://{API}/", API_HEADERS)
                answers.append(answer.status)
        except ConnectionError:
            continue
    assert set(answers) <= {200, 503}
    assert answers[-1] == 200


def test_32_33_bad_rules_while_running_keep_the_good_ones(stage_with: StartStage) -> None:
    stage = stage_with()
    file = stage.proxy.rules_file

    def become_a_folder() -> None:
        file.unlink()
        file.mkdir()

    bad_edits: dict[str, Callable[[], object]] = {
        "garbage": lambda: stage.proxy.write_rules("rules: [\x00"),
        "half": lambda: file.write_text(RULES[: len(RULES) // 2] + "{"),
        "empty": lambda: file.write_text(""),
        "deleted": file.unlink,
        "a folder": become_a_folder,
    }
    for number, (name, edit) in enumerate(bad_edits.items(), start=1):
        edit()
        stage.proxy.wait_for_output(rf"(?s)(the rules in force stay.*){{{number}}}")
        assert stage.ask().status == 200, name
        assert auth_fields(stage) == [("Authorization", f"Bearer {GW}")], name
        if file.is_dir():
            file.rmdir()
        for scheme, auth in (("x-api-key", ("x-api-key", GW)), ("bearer", ("Authorization", f"Bearer {GW}"))):
            stage.proxy.write_rules(RULES.replace("scheme: bearer", f"scheme: {scheme}"))
            wait_until(partial(sends, stage, auth), stage.proxy.output)
    assert stage.proxy.output().count("the rules in force stay") == len(bad_edits)


def sends(stage: Stage, auth: tuple[str, str]) -> bool:
    """Send a request; return whether this is the only key that leaves."""
    return stage.ask().status == 200 and auth_fields(stage) == [auth]


# Apart, as mitmproxy logs an error of its own for the second script that cannot be loaded.
@pytest.mark.parametrize("texts", [("import nowhere_at_all\n", "", None), ("raise ValueError\n",)], ids=repr)
def test_34_a_broken_script_answers_503(
    stage_with: StartStage, tmp_path: Path, texts: tuple[str | None, ...]
) -> None:
    addon = tmp_path / "addon"
    shutil.copytree(ROOT / "addon", addon, ignore=shutil.ignore_patterns("__pycache__"))
    script = addon / "gateway.py"
    good = script.read_text()
    stage = stage_with(script=script)
    assert stage.ask().status == 200
    for broken in texts:
        if broken is None:
            script.unlink()
        else:
            replace_text(script, broken)
        # mitmproxy looks once a second; what is asked meanwhile is still served by the rules.
        wait_for_status(stage, 503, before=200)
        sent = stage.arrived()
        for target in ("/v1/messages", "/x"):
            assert stage.ask_anyway(target).status == 503
        assert stage.arrived() == sent
        if broken is not None:
            replace_text(script, good)
            wait_for_status(stage, 200, before=503)
    stage.ends_refusing = texts[-1] is None  # a deleted script is loaded again at a restart only


def wait_for_status(stage: Stage, status: int, *, before: int) -> None:
    """Ask until the answer is `status`; each answer before is `before`."""

    def has_changed() -> bool:
        answer = stage.ask_anyway()
        assert answer.status in (before, status)
        return answer.status == status

    wait_until(has_changed, timeout=15)


def replace_text(file: Path, text: str) -> None:
    """Changes a file at one stroke. mitmproxy goes by the time of the last change, which has the same value for
    emptying a file and for filling it again: in between it would read nothing, and never look again.
    """
    draft = file.with_suffix(".new")
    draft.write_text(text)
    draft.replace(file)


def test_35_keys_in_every_spelling_become_one_header(stage: Stage) -> None:
    names = ["x-api-key", "X-API-KEY", "authorization", "AUTHORIZATION", "api-key", "Api_Key", "X_Api_Key",
             "x-goog-api-key", "anthropic-api-key", "Ocp-Apim-Subscription-Key", "Cookie", "Proxy-Authorization",
             "XApiKey", "x--api--key"]  # fmt: skip
    headers = [("Host", API), JSON, *((name, f"{CK}-{number}") for number, name in enumerate(names))]
    headers += [("Sec-WebSocket-Protocol", f"realtime, openai-insecure-api-key.{CK}")]
    assert stage.ask(headers=headers).status == 200
    assert auth_fields(stage) == [("Authorization", f"Bearer {GW}")]
    assert stage.asked.values("sec-websocket-protocol") == ["realtime"]


def test_35_keys_in_every_spelling_become_one_header_over_http2(stage: Stage) -> None:
    head = pseudo_headers(API)
    keys = [("x-api-key", CK), ("authorization", f"Bearer {CK}"), ("authorization", CK), ("cookie", CK)]
    assert stage.http2().request([*head, *keys], BODY).status == 200
    assert auth_fields(stage) == [("authorization", f"Bearer {GW}")]


@table(
    "name",
    ["key", "KEY", "api_key", "access_token", "%6bey", "k%65y", "api%5Fkey", "+key", "apikey", "API-Key",
     "x-api-key", "accessToken"],
)  # fmt: skip
def test_36_keys_are_removed_from_the_query_and_the_rest_keeps_every_byte(stage: Stage, name: str) -> None:
    target = f"/v1/x?a=%7e&{name}={CK}&alt=sse&&b=+"
    assert stage.ask(target).status == 200
    assert stage.asked.target == "/v1/x?a=%7e&alt=sse&&b=+"


def test_36_keys_in_the_query_of_a_refused_request_are_not_shown(stage: Stage) -> None:
    headers = [("Host", "evil.test"), CLIENT_KEY]
    stage.assert_refused(stage.ask(f"/v1/x?key={CK}", headers), 421)


@table("value", ["keep-alive, Authorization", "authorization", "x-api-key, AUTHORIZATION ,close"])
def test_38_connection_does_not_name_the_auth_header(stage: Stage, value: str) -> None:
    assert stage.ask(headers=[*API_HEADERS, ("Connection", value)]).status == 200
    assert "authorization" not in ",".join(stage.asked.values("connection")).lower()
    assert auth_fields(stage) == [("Authorization", f"Bearer {GW}")]


UNUSABLE = {"crlf": b"abc\r\nX-Evil: 1", "two": b"abc\n\ndef", "blank": b"a b", "nul": b"a\0b", "accent": "é".encode(),
            "empty": b"", "newline": b"\n", "two-newlines": b"abc\n\n"}  # fmt: skip


def test_39_an_unusable_credential_is_refused_without_its_value(
    stage_with: StartStage, tmp_path: Path
) -> None:
    key = tmp_path / "key"
    key.write_bytes(GW.encode())
    key.chmod(0o600)
    stage = stage_with(rules=RULES.replace("{env: GW_KEY}", f"{{file: {key}}}"))
    for value in UNUSABLE.values():
        key.write_bytes(value)
        sent = stage.arrived()
        answer = stage.ask_anyway()
        assert (answer.status, stage.arrived()) == (424, sent), value
    assert "X-Evil" not in stage.proxy.output()
    for usable in (GW, f"{GW}\n", f"{GW}\r\n", f"Bearer {GW}\n"):
        key.write_bytes(usable.encode())
        assert stage.ask().status == 200
        assert auth_fields(stage) == [("Authorization", f"Bearer {GW}")]


def test_43_a_replay_has_the_same_destination_path_and_model(
    stage_with: StartStage, mitmdump: StartMitmdump, tmp_path: Path
) -> None:
    stage = stage_with()
    assert stage.ask(f"/v1/messages?beta=true&key={CK}").status == 200
    first = stage.asked
    stage.proxy.stop()
    kept = tmp_path / "recorded"
    shutil.copy(stage.flows, kept)
    before = len(stage.gw.requests)
    # Without `keepserving` mitmdump ends after the replay, in the middle of the next request.
    stage.restart("-C", str(kept), "--set", "client_replay_concurrency=1", "--set", "keepserving=true")
    again = stage.gw.wait_for_request(count=before + 1)
    assert (again.method, again.target, again.body) == (first.method, first.target, first.body)
    assert [value for name, value in again.headers if normal_name(name) in AUTH] == [f"Bearer {GW}"]
    assert again.header("host") == "gw.test"
    assert_absent(stage.gw.raw, "replayed", CK_MARK)


def test_a_client_that_sends_what_a_mask_looks_like_is_served(stage: Stage) -> None:
    headers = [("Host", API), JSON, ("x-api-key", "****cdef"), ("authorization", f"Bearer **** {CK}")]
    assert stage.ask(headers=headers).status == 200
    assert auth_fields(stage) == [("Authorization", f"Bearer {GW}")]


def test_a_websocket_whose_messages_a_rule_would_map_is_refused(stage: Stage) -> None:
    answer = stage.ask("/v1/realtime", [("Host", API), CLIENT_KEY, *UPGRADE], b"", "GET")
    stage.assert_refused(answer, 426)
    assert answer.header("x-should-retry") == "false"


def test_a_websocket_goes_out_with_the_gateways_key_only(stage: Stage) -> None:
    accept = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    stage.gw.script = Bytes(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n\x81\x02hi"
    )
    client = stage.tunnel("path.test")
    client.send_request("GET", "/v1/realtime", [("Host", "path.test"), CLIENT_KEY, *UPGRADE])
    assert client.read_head()[0] == 101
    stage.gw.wait_for_request("/base/v1/realtime")
    assert auth_fields(stage) == [("Authorization", f"Bearer {GW}")]
    client.close()
