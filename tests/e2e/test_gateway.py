"""The gateway in a real mitmdump: admission, upstream requests, responses and streaming."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import anthropic
import openai
import pytest
from mitmproxy import http, io

from support.answers import (
    Close,
    Reply,
    Stream,
    claude_answers,
    event,
    insist_on_bearer,
    json_reply,
    message,
    message_events,
)
from support.certificates import Authority
from support.constants import API, CK, ENV, GW, HEADERS, REVERSE, ROOT
from support.processes import Mitmdump
from support.recorder import Recorder
from support.rules import one_rule
from support.starters import RunClaude, RunCurl, StartMitmdump, StartRecorder
from support.wire import Http2Client, Response, Wire

pytestmark = pytest.mark.e2e


def rules(upstream: Recorder, extra: str = "", auth: str = "{scheme: bearer, credential: gw}") -> str:
    return one_rule(f"{upstream.url}/base", extra, auth=auth)


MODELS = "    models: {map: {claude-opus-*: gw-large}, default: gw-small}"


def post(
    proxy: Mitmdump,
    body: bytes = b"{}",
    headers: list[tuple[str, str]] | None = None,
    target: str = "/v1/messages?beta=true",
) -> Response:
    with Wire(proxy.port) as client:
        return client.request("POST", target, HEADERS if headers is None else headers, body)


def assert_nothing_sent(upstream: Recorder) -> None:
    assert upstream.raw == b""


# ---- real clients ----


def test_claude_code_through_a_reverse_listener(
    recorder: StartRecorder, mitmdump: StartMitmdump, run_claude: RunClaude
) -> None:
    upstream = recorder(insist_on_bearer(GW))
    proxy = mitmdump(rules=rules(upstream, MODELS), modes=REVERSE, env=ENV)
    done = run_claude({"ANTHROPIC_BASE_URL": proxy.url, "ANTHROPIC_API_KEY": CK})
    assert (done.code, done.stdout) == (0, "hello there\n"), (done, proxy.output())
    asked = upstream.wait_for_request("/base/v1/messages")
    assert asked.target == "/base/v1/messages?beta=true"
    assert asked.values("authorization") == [f"Bearer {GW}"]
    assert asked.json["model"] in ("gw-small", "gw-large")
    assert CK.encode() not in upstream.raw


def test_claude_code_through_an_intercepting_listener(
    recorder: StartRecorder,
    mitmdump: StartMitmdump,
    run_claude: RunClaude,
    authority: Authority,
) -> None:
    upstream = recorder(insist_on_bearer(GW), tls=authority, names=["gw.test"])
    text = rules(upstream, MODELS).replace(upstream.url, "https://gw.test")
    # The client's own host answers nothing that Claude Code asks besides; without any answer it asks for 20 s.
    own = recorder(json_reply({}, 404), tls=authority, names=[API])
    names = {"gw.test:443": upstream.port, f"{API}:443": own.port}
    proxy = mitmdump(rules=text, names=names, trust=authority.ca_file, env=ENV)
    done = run_claude(
        {"HTTPS_PROXY": proxy.url, "NODE_EXTRA_CA_CERTS": str(proxy.ca_cert), "ANTHROPIC_API_KEY": CK}
    )
    assert (done.code, done.stdout) == (0, "hello there\n"), (done, proxy.output())
    assert CK.encode() not in upstream.raw
    assert {request.path for request in upstream.requests} == {"/base/v1/messages"}
    assert not any(request.path.startswith("/v1/") for request in own.requests)


def test_the_anthropic_sdk_streams(recorder: StartRecorder, mitmdump: StartMitmdump) -> None:
    upstream = recorder(insist_on_bearer(GW, then=claude_answers))
    proxy = mitmdump(rules=rules(upstream, MODELS), modes=REVERSE, env=ENV)
    client = anthropic.Anthropic(base_url=proxy.url, api_key=CK, max_retries=0)
    with client.messages.stream(
        model="claude-opus-4-1", max_tokens=9, messages=[{"role": "user", "content": "hi"}]
    ) as stream:
        answer = stream.get_final_message()
    assert answer.model == "claude-opus-4-1"
    assert upstream.requests[0].json["model"] == "gw-large"


def test_the_openai_sdk_streams(recorder: StartRecorder, mitmdump: StartMitmdump) -> None:
    def chunk(text: str) -> bytes:
        data = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "gw-small",
                "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]}  # fmt: skip
        return f"data: {json.dumps(data)}\n\n".encode()

    chunks = (chunk("hel"), chunk("lo"), b"data: [DONE]\n\n")
    upstream = recorder(insist_on_bearer(GW, then=lambda request: Stream(chunks, gated=False)))
    text = rules(upstream, MODELS).replace(API, "api.openai.com")
    proxy = mitmdump(rules=text, modes=["reverse:https://api.openai.com"], env=ENV)
    client = openai.OpenAI(base_url=f"{proxy.url}/v1", api_key="dummy", max_retries=0)
    parts = list(
        client.chat.completions.create(
            model="gpt-5", messages=[{"role": "user", "content": "hi"}], stream=True
        )
    )
    assert "".join(part.choices[0].delta.content or "" for part in parts) == "hello"
    assert {part.model for part in parts} == {"gpt-5"}


def test_curl_over_http2(
    recorder: StartRecorder,
    mitmdump: StartMitmdump,
    authority: Authority,
    run_curl: RunCurl,
) -> None:
    upstream = recorder(json_reply(message("gw-large")), tls=authority, names=["gw.test"], http2=True)
    text = rules(upstream, MODELS).replace(upstream.url, "https://gw.test")
    proxy = mitmdump(rules=text, names={"gw.test": upstream.port}, trust=authority.ca_file, env=ENV)
    done = run_curl(
        *("--http2", "-x", proxy.url, "--cacert", proxy.ca_cert, f"https://{API}/v1/messages"),
        *("-H", f"x-api-key: {CK}", "-d", '{"model":"claude-opus-4"}', "-w", "%{http_version}"),
    )
    assert done.stdout == json.dumps(message("claude-opus-4")) + "2", (done, proxy.output())
    asked = upstream.requests[0]
    assert upstream.connections[0].alpn == "h2"
    assert (asked.header(":authority"), asked.header("host")) == ("gw.test", None)
    assert asked.body == b'{"model":"gw-large"}'
    assert asked.header("authorization") == f"Bearer {GW}"
    assert CK.encode() not in upstream.raw


# ---- streaming ----


@pytest.mark.parametrize("extra", ["", MODELS], ids=["untouched", "restored"])
def test_each_event_arrives_before_the_next_is_sent(
    recorder: StartRecorder, mitmdump: StartMitmdump, extra: str
) -> None:
    events = message_events("gw-large")
    upstream = recorder(Stream(events))
    proxy = mitmdump(rules=rules(upstream, extra), modes=REVERSE, env=ENV)
    with Wire(proxy.port) as client:
        client.send_request("POST", "/v1/messages", HEADERS, b'{"model":"claude-opus-4"}')
        client.read_head()
        for number, expected in enumerate(events):
            if number:
                upstream.release()
            shown = expected.replace(b"gw-large", b"claude-opus-4") if extra else expected
            assert client.read_chunk().data == shown
        assert client.read_chunk().data == b""


def test_http2_clients_get_events_one_by_one(
    recorder: StartRecorder, mitmdump: StartMitmdump, authority: Authority
) -> None:
    events = message_events("gw-large")
    upstream = recorder(Stream(events), tls=authority, names=["gw.test"], http2=True)
    text = rules(upstream, MODELS).replace(upstream.url, "https://gw.test")
    proxy = mitmdump(rules=text, names={"gw.test": upstream.port}, trust=authority.ca_file, env=ENV)
    head = [(":method", "POST"), (":scheme", "https"), (":authority", API), (":path", "/v1/messages")]
    with Wire.through(proxy.port, f"{API}:443", proxy.ca_cert, alpn=["h2"]) as wire:
        client = Http2Client(wire)
        stream = client.send_request([*head, ("x-api-key", CK)], b'{"model":"claude-opus-4"}')
        for number, expected in enumerate(events):
            if number:
                upstream.release()
            assert client.read_chunk(stream, number).data == expected.replace(b"gw-large", b"claude-opus-4")


@pytest.mark.parametrize("framing", ["content-length", "chunked"])
def test_a_json_response_is_complete_and_has_the_clients_model_name(
    recorder: StartRecorder, mitmdump: StartMitmdump, framing: str
) -> None:
    body = json.dumps(message("gw-s", "x" * 5000)).encode()
    answer = (
        Reply(200, body, (("Content-Type", "application/json"),))
        if framing == "content-length"
        else Stream((body[:40], body[40:]), gated=False, headers=(("Content-Type", "application/json"),))
    )
    upstream = recorder(answer)
    proxy = mitmdump(rules=rules(upstream, MODELS), modes=REVERSE, env=ENV)
    with Wire(proxy.port) as client:
        for _ in range(2):  # the second on the same connection: the framing was right
            got = client.request("POST", "/v1/messages", HEADERS, b'{"model":"claude-opus-with-a-long-name"}')
            assert got.body == body.replace(b"gw-s", b"claude-opus-with-a-long-name")


def recorded_flow(path: Path) -> http.HTTPFlow:
    with path.open("rb") as file:
        flows = [flow for flow in io.FlowReader(file).stream() if isinstance(flow, http.HTTPFlow)]
    assert len(flows) == 1
    return flows[0]


def test_a_streamed_answer_is_kept_whole_and_without_secrets(
    recorder: StartRecorder, mitmdump: StartMitmdump, tmp_path: Path
) -> None:
    upstream = recorder(Stream(message_events("gw-large"), gated=False))
    file = tmp_path / "flows"
    proxy = mitmdump("-w", str(file), rules=rules(upstream, MODELS), modes=REVERSE, env=ENV)
    answer = post(proxy, b'{"model":"claude-opus-4"}')
    proxy.stop()
    flow = recorded_flow(file)
    assert flow.response is not None
    assert flow.response.raw_content == answer.body
    assert flow.comment.startswith("opus-4 11→7 → gw-large, gw: x-api-key → bearer, 200, ")
    kept = file.read_bytes()
    assert GW.encode() not in kept
    assert CK.encode() not in kept


def test_received_parts_are_kept_when_the_client_hangs_up(
    recorder: StartRecorder, mitmdump: StartMitmdump, tmp_path: Path
) -> None:
    events = message_events()
    upstream = recorder(Stream(events))
    file = tmp_path / "flows"
    proxy = mitmdump("-w", str(file), rules=rules(upstream), modes=REVERSE, env=ENV)
    with Wire(proxy.port) as client:
        client.send_request("POST", "/v1/messages", HEADERS, b"{}")
        client.read_head()
        client.read_chunk()
    upstream.wait_for_hangup()
    proxy.stop()
    flow = recorded_flow(file)
    assert flow.response is not None
    assert flow.response.raw_content == events[0]
    assert GW.encode() not in file.read_bytes()


def test_a_long_answer_is_kept_up_to_the_limit(
    recorder: StartRecorder, mitmdump: StartMitmdump, tmp_path: Path
) -> None:
    body = bytes(range(256)) * 400
    upstream = recorder(Reply(200, body))
    file = tmp_path / "flows"
    capture = ("--set", "gateway_capture=1KiB")
    proxy = mitmdump("-w", str(file), *capture, rules=rules(upstream), modes=REVERSE, env=ENV)
    assert post(proxy).body == body
    proxy.stop()
    flow = recorded_flow(file)
    assert flow.response is not None
    assert flow.response.raw_content == body[:1024]
    assert "the rest is not kept" in flow.comment


# ---- bytes ----

NASTY = (
    b'\xef\xbb\xbf {"a":{"model":"claude-opus-1"},"n":[1.0,1E400,-0,12345678901234567890123],'
    b'"t":"\\ud800 \xc3\xa9 \\u0041","\\u006dodel" : "claude-opus-4" , "z":[ ]}\n'
)


def test_only_the_model_in_a_body_changes(recorder: StartRecorder, mitmdump: StartMitmdump) -> None:
    upstream = recorder(json_reply(message()))
    proxy = mitmdump(rules=rules(upstream, MODELS), modes=REVERSE, env=ENV)
    post(proxy, NASTY)
    assert upstream.requests[0].body == NASTY.replace(b'"claude-opus-4"', b'"gw-large"')


def test_a_request_without_body_rules_keeps_every_byte(
    recorder: StartRecorder, mitmdump: StartMitmdump
) -> None:
    upstream = recorder(Reply(200, b"\x00\xff answer", (("X-Odd", "a,b"), ("anthropic-x", "1"))))
    proxy = mitmdump(rules=rules(upstream), modes=REVERSE, env=ENV)
    headers = [
        ("hOsT", "localhost"), ("X-Api-Key", CK), ("anthropic-NEW", "1"), ("X-Twice", "a"), ("X-Twice", "b"),
        ("Content-Encoding", "gzip"), ("Accept-Encoding", "gzip, br"),
    ]  # fmt: skip
    body = gzip.compress(b'{"model": 5')
    answer = post(proxy, body, headers, "/v1/x?q=%7e&&r=+")
    asked = upstream.requests[0]
    assert asked.body == body
    assert asked.target == "/base/v1/x?q=%7e&&r=+"
    authority = f"127.0.0.1:{upstream.port}"
    assert list(asked.headers) == [
        ("Host", authority), *headers[2:], ("Content-Length", str(len(body))), ("Authorization", f"Bearer {GW}"),
    ]  # fmt: skip
    assert (answer.body, answer.header("X-Odd"), answer.header("anthropic-x")) == (
        b"\x00\xff answer",
        "a,b",
        "1",
    )


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd"])
def test_compressed_bodies_are_edited(
    recorder: StartRecorder, mitmdump: StartMitmdump, encoding: str
) -> None:
    from mitmproxy.net import encoding as codecs

    upstream = recorder(json_reply(message()))
    proxy = mitmdump(rules=rules(upstream, MODELS), modes=REVERSE, env=ENV)
    body = codecs.encode(b'{"model":"claude-opus-4"}', encoding)
    post(proxy, body, [*HEADERS, ("Content-Encoding", encoding)])
    asked = upstream.requests[0]
    assert asked.body == b'{"model":"gw-large"}'
    assert asked.header("content-encoding") is None


def test_header_beta_and_body_edits_are_applied_together(
    recorder: StartRecorder, mitmdump: StartMitmdump
) -> None:
    extra = """
    headers: {set: {Editor-Version: vscode/1}, remove: [x-stainless-*]}
    beta: {keep: [keep-*], add: [added]}
    body: {remove: ["tools[*].defer_loading"], set: {metadata.user_id: u}}
"""
    upstream = recorder(json_reply(message()))
    proxy = mitmdump(rules=rules(upstream, extra), modes=REVERSE, env=ENV)
    headers = [*HEADERS, ("X-Stainless-OS", "x"), ("anthropic-beta", "keep-1,drop-1")]
    post(proxy, b'{"tools":[{"a":1,"defer_loading":true}],"anthropic_beta":["drop-2","keep-2"]}', headers)
    asked = upstream.requests[0]
    assert asked.header("editor-version") == "vscode/1"
    assert asked.header("x-stainless-os") is None
    assert asked.header("anthropic-beta") == "keep-1,added"
    assert asked.json == {
        "tools": [{"a": 1}],
        "anthropic_beta": ["keep-2", "added"],
        "metadata": {"user_id": "u"},
    }


# ---- bad bodies ----


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"model":"a","model":"b"}', 400),
        (b'{"model":"a","\\u006dodel":"b"}', 400),
        (b'["model"]', 400),
        (b'{"model":["a"]}', 400),
        (b'{"model":"\xff"}', 400),
        ('{"model":"a"}'.encode("utf-16"), 400),
        (b'{"model":"a"', 400),
        (b'{"model":"a","x":' + b"[" * 100_000, 400),
        (b'{"model":"a","x":' + b"9" * 5000 + b"}", 400),
    ],
    ids=["two", "two-escaped", "array", "list", "bytes", "utf-16", "cut", "deep", "digits"],
)
def test_a_body_that_cannot_be_read_is_refused_and_the_next_request_works(
    recorder: StartRecorder, mitmdump: StartMitmdump, body: bytes, status: int
) -> None:
    upstream = recorder(json_reply(message()))
    proxy = mitmdump(rules=rules(upstream, MODELS), modes=REVERSE, env=ENV)
    answer = post(proxy, body)
    assert answer.status == status
    error = json.loads(answer.body)
    assert (error["type"], error["error"]["type"]) == ("error", "invalid_request_error")
    assert error["error"]["message"].startswith("mitm-gateway: ")
    assert_nothing_sent(upstream)
    assert post(proxy, b'{"model":"claude-opus-4"}').status == 200


def test_a_bomb_is_413_and_others_go_on(recorder: StartRecorder, mitmdump: StartMitmdump) -> None:
    upstream = recorder(json_reply(message()))
    proxy = mitmdump(rules=rules(upstream, MODELS), modes=REVERSE, env=ENV)
    bomb = gzip.compress(b'{"model":"' + b"a" * (80 << 20) + b'"}')
    answer = post(proxy, bomb, [*HEADERS, ("Content-Encoding", "gzip")])
    assert answer.status == 413
    assert json.loads(answer.body)["error"]["type"] == "request_too_large"
    assert_nothing_sent(upstream)
    assert post(proxy, b"{}").status == 200


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_over_the_limit_is_413(
    recorder: StartRecorder, mitmdump: StartMitmdump, chunked: bool
) -> None:
    upstream = recorder(json_reply(message()))
    limit = ("--set", "gateway_body_limit=64KiB")
    proxy = mitmdump(*limit, rules=rules(upstream, MODELS), modes=REVERSE, env=ENV)
    body = b'{"model":"a","x":"' + b"a" * 100_000 + b'"}'
    if chunked:
        headers = [*HEADERS, ("Transfer-Encoding", "chunked")]
        body = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    else:
        headers = HEADERS
    assert post(proxy, body, headers).status == 413
    assert_nothing_sent(upstream)


def test_a_rule_can_set_a_key_in_the_query_and_edit_selected_list_items(
    recorder: StartRecorder, mitmdump: StartMitmdump, tmp_path: Path
) -> None:
    upstream = recorder(claude_answers)
    extra = """    query: {set: {key: "${credential:gw}", api-version: "1"}, remove: [trace*]}
    body: {remove: ["tools[type=web_search_*]"]}"""
    saved = tmp_path / "flows"
    proxy = mitmdump("-w", str(saved), rules=rules(upstream, extra, "{scheme: none}"), modes=REVERSE, env=ENV)
    tools = b'"tools":[{"type":"web_search_1"}, {"type":"bash"}]'
    answer = post(proxy, b'{"model":"m",' + tools + b"}", target="/v1/messages?key=mine&beta=true&trace=1")
    assert answer.status == 200
    (asked,) = upstream.requests
    assert asked.target == f"/base/v1/messages?beta=true&key={GW}&api-version=1"
    assert asked.values("authorization") == []
    assert asked.body == b'{"model":"m","tools":[{"type":"bash"}]}'
    proxy.stop()
    assert GW.encode() not in saved.read_bytes() + proxy.output().encode()


def test_requests_without_a_body_pass(recorder: StartRecorder, mitmdump: StartMitmdump) -> None:
    upstream = recorder(json_reply({"data": []}))
    proxy = mitmdump(rules=rules(upstream, MODELS), modes=REVERSE, env=ENV)
    with Wire(proxy.port) as client:
        assert client.request("GET", "/v1/models", HEADERS).status == 200
    assert upstream.requests[0].header("content-length") is None


# ---- credentials, failing closed ----


def test_without_a_credential_the_request_is_refused(
    recorder: StartRecorder, mitmdump: StartMitmdump
) -> None:
    upstream = recorder(json_reply(message()))
    proxy = mitmdump(rules=rules(upstream), modes=REVERSE)
    answer = post(proxy)
    assert answer.status == 424
    assert answer.header("x-should-retry") == "false"
    assert json.loads(answer.body)["error"]["message"] == (
        'mitm-gateway: credential "gw": the environment variable GW_KEY is not set (rule "gw")'
    )
    assert_nothing_sent(upstream)


def test_a_key_file_is_read_again_when_it_changes(
    recorder: StartRecorder, mitmdump: StartMitmdump, tmp_path: Path
) -> None:
    key = tmp_path / "key"
    key.write_text("first\n")
    upstream = recorder(json_reply(message()))
    text = rules(upstream).replace("{env: GW_KEY}", f"{{file: {key}}}")
    proxy = mitmdump(rules=text, modes=REVERSE)
    post(proxy)
    key.write_text("second-key\n")
    post(proxy)
    assert [request.header("authorization") for request in upstream.requests] == [
        "Bearer first",
        "Bearer second-key",
    ]


def test_the_model_decides_between_rules(recorder: StartRecorder, mitmdump: StartMitmdump) -> None:
    upstream = recorder(json_reply(message()))
    text = f"""
credentials: {{gw: {{env: GW_KEY}}}}
rules:
  - name: opus
    match: {{host: {API}, model: "claude-opus-*"}}
    upstream: {upstream.url}/opus
    auth: {{scheme: bearer, credential: gw}}
  - name: rest
    match: {{host: {API}}}
    upstream: {upstream.url}/rest
    auth: {{scheme: x-api-key, credential: gw}}
"""
    proxy = mitmdump(rules=text, modes=REVERSE, env=ENV)
    post(proxy, b'{"model":"claude-opus-4"}', target="/v1/x")
    post(proxy, b'{"model":"claude-haiku"}', target="/v1/x")
    assert [request.target for request in upstream.requests] == ["/opus/v1/x", "/rest/v1/x"]
    assert [request.header("x-api-key") for request in upstream.requests] == [None, GW]
    answer = post(proxy, b"nonsense")
    assert answer.status == 400


def test_unmatched_requests_are_blocked_on_a_reverse_listener(
    recorder: StartRecorder, mitmdump: StartMitmdump
) -> None:
    upstream = recorder(json_reply(message()))
    proxy = mitmdump(rules=rules(upstream), modes=REVERSE, env=ENV)
    answer = post(proxy, target="/api/event_logging/v2/batch")
    assert answer.status == 404
    assert json.loads(answer.body)["error"]["type"] == "not_found_error"
    assert_nothing_sent(upstream)


def test_unmatched_requests_pass_untouched_when_intercepting(
    recorder: StartRecorder, mitmdump: StartMitmdump, authority: Authority
) -> None:
    gateway = recorder(json_reply(message()))
    original = recorder(Reply(200, b"original"), tls=authority, names=[API])
    proxy = mitmdump(rules=rules(gateway), names={API: original.port}, trust=authority.ca_file, env=ENV)
    headers = [("Host", API), ("x-api-key", CK), ("X-Odd", "1")]
    with Wire.through(proxy.port, f"{API}:443", proxy.ca_cert) as client:
        assert client.request("POST", "/api/event_logging", headers, b"{}").body == b"original"
    assert list(original.requests[0].headers)[:3] == headers
    assert_nothing_sent(gateway)


def test_unmatched_requests_that_pass_a_reverse_listener_name_the_target(
    recorder: StartRecorder, mitmdump: StartMitmdump
) -> None:
    target = recorder(Reply(200, b"target"))
    text = rules(target) + "unmatched: pass\n"
    proxy = mitmdump(rules=text, modes=[f"reverse:{target.url}"], env=ENV)
    with Wire(proxy.port) as client:
        assert client.request("GET", "/other", [("Host", "localhost"), ("X-A", "1")]).body == b"target"
    assert list(target.requests[0].headers) == [("Host", f"127.0.0.1:{target.port}"), ("X-A", "1")]


def test_hosts_without_rules_may_stay_undecrypted(
    recorder: StartRecorder, mitmdump: StartMitmdump, authority: Authority
) -> None:
    gateway = recorder(json_reply(message()))
    other = recorder(Reply(200, b"other"), tls=authority, names=["other.test"])
    proxy = mitmdump(
        *("--set", "gateway_intercept=rules"),
        rules=rules(gateway),
        names={"other.test": other.port},
        trust=authority.ca_file,
        env=ENV,
    )
    # The other host's own certificate comes through; the proxy's stands for the rule's host only.
    with Wire.through(proxy.port, "other.test:443", authority.ca_file) as client:
        assert client.request("GET", "/", [("Host", "other.test")]).body == b"other"
    with Wire.through(proxy.port, f"{API}:443", proxy.ca_cert) as client:
        headers = [("Host", API), ("x-api-key", CK)]
        assert client.request("POST", "/v1/messages", headers, b"{}").status == 200
    assert gateway.requests[0].header("authorization") == f"Bearer {GW}"
    assert CK.encode() not in gateway.raw


def test_the_demo_gateway_needs_no_account(mitmdump: StartMitmdump) -> None:
    shipped = ROOT / "rules.yaml"
    proxy = mitmdump(rules=shipped.read_text(), modes=REVERSE)
    answer = post(proxy, b'{"model":"claude-x","max_tokens":9,"messages":[{"role":"user","content":"ping"}]}')
    assert answer.status == 200, proxy.output()
    assert "You said: ping" in json.loads(answer.body)["content"][0]["text"]


def test_the_shipped_rules_take_a_real_gateway_from_two_variables(
    recorder: StartRecorder, mitmdump: StartMitmdump
) -> None:
    shipped = ROOT / "rules.yaml"
    upstream = recorder(insist_on_bearer(GW, then=lambda request: json_reply(message())))
    env = {"GATEWAY_URL": f"{upstream.url}/anthropic", "GATEWAY_API_KEY": GW}
    proxy = mitmdump(rules=shipped.read_text(), modes=REVERSE, env=env)
    assert post(proxy).status == 200
    assert upstream.requests[0].path == "/anthropic/v1/messages"


def test_a_dead_upstream_is_502_in_json(mitmdump: StartMitmdump, recorder: StartRecorder) -> None:
    upstream = recorder(Close())
    proxy = mitmdump(rules=rules(upstream), modes=REVERSE, env=ENV)
    answer = post(proxy)
    assert answer.status == 502
    assert json.loads(answer.body)["error"]["type"] == "api_error"


# ---- rules files ----

WRONG = """
rules:
  - name: a
    match: {hots: x.test}
    upstraem: https://h.test
"""


def test_a_wrong_file_at_start_ends_the_program_with_every_problem(mitmdump: StartMitmdump) -> None:
    proxy = mitmdump(rules=WRONG, modes=REVERSE, wait=False)
    assert proxy.wait_for_exit() == 1
    assert 'rules.yaml:4:13: unknown key "hots"' in proxy.output()
    assert 'rules.yaml:5:5: unknown key "upstraem" in rule "a" (did you mean "upstream"?)' in proxy.output()


def test_a_missing_file_at_start_ends_the_program(mitmdump: StartMitmdump, tmp_path: Path) -> None:
    option = ("--set", f"gateway_rules={tmp_path / 'nowhere.yaml'}")
    proxy = mitmdump(*option, modes=REVERSE, wait=False)
    assert proxy.wait_for_exit() == 1
    assert "nowhere.yaml" in proxy.output()


def test_an_edit_takes_effect_without_a_restart(recorder: StartRecorder, mitmdump: StartMitmdump) -> None:
    upstream = recorder(json_reply(message()))
    proxy = mitmdump(rules=rules(upstream), modes=REVERSE, env=ENV)
    post(proxy)
    proxy.write_rules(rules(upstream, auth="{scheme: x-api-key, credential: gw}"))
    proxy.wait_for_output("(?s)rules? in force.*rules? in force")
    post(proxy)
    assert [request.header("x-api-key") for request in upstream.requests] == [None, GW]


@pytest.mark.parametrize("how", ["wrong", "half", "empty", "deleted", "directory"])
def test_a_bad_edit_keeps_the_rules_in_force_and_the_next_good_one_applies(
    recorder: StartRecorder, mitmdump: StartMitmdump, how: str
) -> None:
    upstream = recorder(json_reply(message()))
    good = rules(upstream)
    proxy = mitmdump(rules=good, modes=REVERSE, env=ENV)
    file = proxy.rules_file
    match how:
        case "wrong":
            proxy.write_rules(WRONG)
        case "half":
            file.write_text(good[: len(good) // 2] + "{")
        case "empty":
            file.write_text("")
        case "deleted":
            file.unlink()
        case "directory":
            file.unlink()
            file.mkdir()
    proxy.wait_for_output("the rules in force stay")
    assert post(proxy).status == 200
    if how == "directory":
        os.rmdir(file)  # noqa: PTH106 - the opposite of mkdir above
    proxy.write_rules(rules(upstream, auth="{scheme: x-api-key, credential: gw}"))
    proxy.wait_for_output("(?s)rules? in force.*rules in force stay.*rules? in force")
    assert post(proxy).status == 200
    assert upstream.requests[-1].header("x-api-key") == GW


def test_a_request_under_way_keeps_the_rules_it_began_with(
    recorder: StartRecorder, mitmdump: StartMitmdump
) -> None:
    events = message_events("gw-large")
    upstream = recorder(Stream(events))
    proxy = mitmdump(rules=rules(upstream, MODELS), modes=REVERSE, env=ENV)
    with Wire(proxy.port) as client:
        client.send_request("POST", "/v1/messages", HEADERS, b'{"model":"claude-opus-4"}')
        upstream.wait_for_request()
        proxy.write_rules(rules(upstream))
        proxy.wait_for_output("(?s)rules? in force.*rules? in force")
        upstream.release(len(events))
        answer = client.read_response("POST")
    assert answer.body == b"".join(events).replace(b"gw-large", b"claude-opus-4")


# ---- listeners, loaded flows ----


def test_the_listener_is_on_loopback_by_default(recorder: StartRecorder, mitmdump: StartMitmdump) -> None:
    upstream = recorder(json_reply(message()))
    proxy = mitmdump(rules=rules(upstream), modes=REVERSE, env=ENV, listen_host=None)
    # From Python 3.12 on, mitmproxy binds before the addon can say where; the listener is then narrowed while it is open.
    proxy.wait_for_output(r"listening at 127\.0\.0\.1:\d+\.|reachable at 127\.0\.0\.1 only")
    assert post(proxy).status == 200


def test_loaded_flows_are_not_touched(
    recorder: StartRecorder, mitmdump: StartMitmdump, tmp_path: Path
) -> None:
    upstream = recorder(json_reply(message()))
    file, again = tmp_path / "flows", tmp_path / "again"
    plain = mitmdump("-w", str(file), script=None, modes=[f"reverse:{upstream.url}"])
    post(plain, b'{"model":"claude-opus-4"}')
    plain.stop()
    text = rules(upstream).replace(API, "127.0.0.1")
    proxy = mitmdump("-n", "-r", str(file), "-w", str(again), rules=text, env=ENV, wait=False)
    proxy.wait_for_exit()
    before, after = recorded_flow(file), recorded_flow(again)
    assert after.request.headers.fields == before.request.headers.fields
    assert after.comment == before.comment == ""
    assert GW.encode() not in again.read_bytes()


def test_another_addons_response_is_left_alone(
    recorder: StartRecorder, mitmdump: StartMitmdump, tmp_path: Path
) -> None:
    other = tmp_path / "other.py"
    other.write_text(
        "from mitmproxy import http\n"
        "def requestheaders(flow):\n    flow.response = http.Response.make(418, b'teapot')\n"
    )
    upstream = recorder(json_reply(message()))
    proxy = mitmdump("-s", str(other), rules=rules(upstream), modes=REVERSE, env=ENV)
    answer = post(proxy)
    assert (answer.status, answer.body) == (418, b"teapot")
    assert_nothing_sent(upstream)


def test_a_stream_without_a_model_passes_through_unchanged(
    recorder: StartRecorder, mitmdump: StartMitmdump
) -> None:
    events = (event("ping"), b": comment\n\n", b"data: not json\n\n")
    upstream = recorder(Stream(events, gated=False))
    proxy = mitmdump(rules=rules(upstream, MODELS), modes=REVERSE, env=ENV)
    assert post(proxy, b'{"model":"claude-opus-4"}').body == b"".join(events)
