"""The gateway in a real mitmdump: the bytes of requests, rules files, and clients that send whole URLs."""

import gzip
from pathlib import Path

import pytest
from mitmproxy.net import encoding as codecs

from support.answers import (
    Reply,
    Stream,
    claude_answers,
    insist_on_bearer,
    json_reply,
    message,
    message_events,
)
from support.constants import CK, ENV, GW, HEADERS, REVERSE, ROOT
from support.fixture_types import StartGateway, StartMitmdump, StartRecorder
from support.http_client import Wire
from support.one_rule import MODELS, post, rules

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


def test_a_key_that_a_rule_sets_in_the_query_is_not_recorded(gateway: StartGateway, tmp_path: Path) -> None:
    extra = '    query: {set: {key: "${credential:gw}"}}'
    saved = tmp_path / "flows"
    upstream, proxy = gateway(claude_answers, extra, "-w", str(saved), auth="{scheme: none}")
    assert post(proxy, b'{"model":"m"}', target="/v1/messages?key=mine&beta=true").status == 200
    (asked,) = upstream.requests
    assert asked.target == f"/base/v1/messages?beta=true&key={GW}"
    assert asked.values("authorization") == []
    proxy.stop()
    assert b"/v1/messages" in saved.read_bytes()
    assert GW.encode() not in saved.read_bytes() + proxy.output().encode()


def test_a_whole_url_at_a_reverse_listener_is_a_path_for_the_upstream(
    recorder: StartRecorder, mitmdump: StartMitmdump
) -> None:
    target, upstream = recorder(Reply(200, b"target")), recorder(json_reply(message()))
    text = rules(upstream.url) + "unmatched: pass\n"
    proxy = mitmdump(rules=text, modes=[f"reverse:{target.url}", *REVERSE], env=ENV)
    for port, path in [(proxy.ports[0], "/other"), (proxy.ports[1], "/v1/messages")]:
        place = f"localhost:{port}"
        with Wire(port) as client:
            client.request("POST", f"http://{place}{path}", [("Host", place), ("X-A", "1")], b"{}")
    for received, path in [(target, "/other"), (upstream, "/base/v1/messages")]:
        assert received.raw.startswith(f"POST {path} HTTP/1.1\r\n".encode())
        assert list(received.requests[0].headers)[:2] == [
            ("Host", f"127.0.0.1:{received.port}"),
            ("X-A", "1"),
        ]


# ---- rules files ----


def test_the_shipped_rules_take_a_real_gateway_from_two_variables(
    recorder: StartRecorder, mitmdump: StartMitmdump
) -> None:
    shipped = ROOT / "rules.yaml"
    upstream = recorder(insist_on_bearer(GW, then=json_reply(message())))
    env = {"GATEWAY_URL": f"{upstream.url}/anthropic", "GATEWAY_API_KEY": GW}
    proxy = mitmdump(rules=shipped.read_text(), modes=REVERSE, env=env)
    assert post(proxy).status == 200
    assert upstream.requests[0].path == "/anthropic/v1/messages"


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


def test_a_request_under_way_keeps_the_rules_it_began_with(gateway: StartGateway) -> None:
    events = message_events("gw-large")
    upstream, proxy = gateway(Stream(events), MODELS)
    with Wire(proxy.port) as client:
        client.send_request("POST", "/v1/messages", HEADERS, b'{"model":"claude-opus-4"}')
        upstream.wait_for_request()
        proxy.write_rules(rules(upstream.url))
        proxy.wait_for_output("(?s)rules? in force.*rules? in force")
        upstream.release(len(events))
        answer = client.read_response("POST")
    assert answer.body == b"".join(events).replace(b"gw-large", b"claude-opus-4")
