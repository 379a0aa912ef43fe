"""The gateway in a real mitmdump: the bytes of requests, edited or refused."""

import gzip
from pathlib import Path

import pytest
from mitmproxy.net import encoding as codecs

from support.answers import Reply, claude_answers, json_reply
from support.constants import CK, GW, HEADERS
from support.one_gateway import MODELS, StartGateway, post
from support.wire import Wire

pytestmark = pytest.mark.e2e


# ---- bytes ----


def test_a_request_without_body_rules_keeps_every_byte(gateway: StartGateway) -> None:
    upstream, proxy = gateway(Reply(200, b"\x00\xff answer", (("X-Odd", "a,b"), ("anthropic-x", "1"))))
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
    assert (answer.body, answer.header("X-Odd")) == (b"\x00\xff answer", "a,b")
    assert answer.header("anthropic-x") == "1"


def test_compressed_bodies_are_edited(gateway: StartGateway) -> None:
    upstream, proxy = gateway(extra=MODELS)
    for encoding in ("gzip", "deflate", "br", "zstd"):
        body = codecs.encode(b'{"model":"claude-opus-4"}', encoding)
        post(proxy, body, [*HEADERS, ("Content-Encoding", encoding)])
        asked = upstream.requests[-1]
        assert (asked.body, asked.header("content-encoding")) == (b'{"model":"gw-large"}', None), encoding


def test_header_beta_and_body_edits_are_applied_together(gateway: StartGateway) -> None:
    extra = """
    headers: {set: {Editor-Version: vscode/1}, remove: [x-stainless-*]}
    beta: {keep: [keep-*], add: [added]}
    body: {remove: ["tools[*].defer_loading"], set: {metadata.user_id: u}}
"""
    upstream, proxy = gateway(extra=extra)
    headers = [*HEADERS, ("X-Stainless-OS", "x"), ("anthropic-beta", "keep-1,drop-1")]
    post(proxy, b'{"tools":[{"a":1,"defer_loading":true}],"anthropic_beta":["drop-2","keep-2"]}', headers)
    asked = upstream.requests[0]
    assert asked.header("editor-version") == "vscode/1"
    assert asked.header("x-stainless-os") is None
    assert asked.header("anthropic-beta") == "keep-1,added"
    left = {"tools": [{"a": 1}], "anthropic_beta": ["keep-2", "added"], "metadata": {"user_id": "u"}}
    assert asked.json == left


# ---- bad bodies ----


def test_a_rule_can_set_a_key_in_the_query_and_edit_selected_list_items(
    gateway: StartGateway, tmp_path: Path
) -> None:
    extra = """    query: {set: {key: "${credential:gw}", api-version: "1"}, remove: [trace*]}
    body: {remove: ["tools[type=web_search_*]"]}"""
    saved = tmp_path / "flows"
    upstream, proxy = gateway(claude_answers, extra, "-w", str(saved), auth="{scheme: none}")
    tools = b'"tools":[{"type":"web_search_1"}, {"type":"bash"}]'
    answer = post(proxy, b'{"model":"m",' + tools + b"}", target="/v1/messages?key=mine&beta=true&trace=1")
    assert answer.status == 200
    (asked,) = upstream.requests
    assert asked.target == f"/base/v1/messages?beta=true&key={GW}&api-version=1"
    assert asked.values("authorization") == []
    assert asked.body == b'{"model":"m","tools":[{"type":"bash"}]}'
    proxy.stop()
    assert GW.encode() not in saved.read_bytes() + proxy.output().encode()


def test_requests_without_a_body_pass(gateway: StartGateway) -> None:
    upstream, proxy = gateway(json_reply({"data": []}), MODELS)
    with Wire(proxy.port) as client:
        assert client.request("GET", "/v1/models", HEADERS).status == 200
    assert upstream.requests[0].header("content-length") is None
