"""The gateway in a real mitmdump: the bytes of requests, edited or refused."""

import gzip
import json
from pathlib import Path

import pytest

from support.answers import (
    Reply,
    claude_answers,
    json_reply,
    message,
)
from support.constants import CK, ENV, GW, HEADERS, REVERSE
from support.one_gateway import MODELS, assert_nothing_sent, post, rules
from support.starters import StartMitmdump, StartRecorder
from support.wire import Wire

pytestmark = pytest.mark.e2e


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
