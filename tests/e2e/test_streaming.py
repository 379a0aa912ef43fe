"""The gateway in a real mitmdump: real clients, and responses that stream."""

import json
from pathlib import Path

import pytest

from support.answers import (
    Reply,
    Stream,
    claude_answers,
    insist_on_bearer,
    json_reply,
    message,
    message_events,
)
from support.certificates import Authority
from support.constants import API, CK, ENV, GW, HEADERS
from support.one_gateway import MODELS, StartGateway, post, recorded_flow, rules
from support.starters import RunClaude, RunCurl, StartMitmdump, StartRecorder
from support.wire import Http2Client, Wire, pseudo_headers

pytestmark = pytest.mark.e2e


# ---- real clients ----


def test_claude_code_through_an_intercepting_listener(
    recorder: StartRecorder, mitmdump: StartMitmdump, run_claude: RunClaude, authority: Authority
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


def test_the_anthropic_sdk_streams(gateway: StartGateway) -> None:
    import anthropic

    upstream, proxy = gateway(insist_on_bearer(GW, then=claude_answers), MODELS)
    client = anthropic.Anthropic(base_url=proxy.url, api_key=CK, max_retries=0)
    with client.messages.stream(
        model="claude-opus-4-1", max_tokens=9, messages=[{"role": "user", "content": "hi"}]
    ) as stream:
        answer = stream.get_final_message()
    assert answer.model == "claude-opus-4-1"
    assert upstream.requests[0].json["model"] == "gw-large"


def test_the_openai_sdk_streams(recorder: StartRecorder, mitmdump: StartMitmdump) -> None:
    import openai

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
    recorder: StartRecorder, mitmdump: StartMitmdump, authority: Authority, run_curl: RunCurl
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


def test_http2_clients_get_events_one_by_one(
    recorder: StartRecorder, mitmdump: StartMitmdump, authority: Authority
) -> None:
    events = message_events("gw-large")
    upstream = recorder(Stream(events), tls=authority, names=["gw.test"], http2=True)
    text = rules(upstream, MODELS).replace(upstream.url, "https://gw.test")
    proxy = mitmdump(rules=text, names={"gw.test": upstream.port}, trust=authority.ca_file, env=ENV)
    head = pseudo_headers(API)
    with Wire.through(proxy.port, f"{API}:443", proxy.ca_cert, alpn=["h2"]) as wire:
        client = Http2Client(wire)
        stream = client.send_request([*head, ("x-api-key", CK)], b'{"model":"claude-opus-4"}')
        for number, expected in enumerate(events):
            if number:
                upstream.release()
            assert client.read_chunk(stream, number).data == expected.replace(b"gw-large", b"claude-opus-4")


def test_a_streamed_answer_is_kept_whole_and_without_secrets(gateway: StartGateway, tmp_path: Path) -> None:
    file = tmp_path / "flows"
    _, proxy = gateway(Stream(message_events("gw-large"), gated=False), MODELS, "-w", str(file))
    answer = post(proxy, b'{"model":"claude-opus-4"}')
    proxy.stop()
    flow = recorded_flow(file)
    assert flow.response is not None
    assert flow.response.raw_content == answer.body
    assert flow.comment.startswith("opus-4 11→7 → gw-large, gw: x-api-key → bearer, 200, ")
    kept = file.read_bytes()
    assert GW.encode() not in kept
    assert CK.encode() not in kept


def test_received_parts_are_kept_when_the_client_hangs_up(gateway: StartGateway, tmp_path: Path) -> None:
    events = message_events()
    file = tmp_path / "flows"
    upstream, proxy = gateway(Stream(events), "", "-w", str(file))
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


def test_a_long_answer_is_kept_up_to_the_limit(gateway: StartGateway, tmp_path: Path) -> None:
    body = bytes(range(256)) * 400
    file = tmp_path / "flows"
    capture = ("--set", "gateway_capture=1KiB")
    _, proxy = gateway(Reply(200, body), "", "-w", str(file), *capture)
    assert post(proxy).body == body
    proxy.stop()
    flow = recorded_flow(file)
    assert flow.response is not None
    assert flow.response.raw_content == body[:1024]
    assert "the rest is not kept" in flow.comment
