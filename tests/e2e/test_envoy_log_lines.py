"""A running Envoy with an exported configuration: the lines of its access log."""

import json

import pytest

from support.answers import Reply, Stream, json_reply, message
from support.certificates import Authority
from support.constants import API, CK, GW
from support.one_envoy import StartOne, ask, error_of, rules
from support.starters import StartEnvoy, StartRecorder

pytestmark = pytest.mark.e2e


def test_a_log_line_has_the_fields_of_gateway_log_and_no_secret(one_envoy: StartOne) -> None:
    upstream, proxy = one_envoy(json_reply(message("gw-model")), "models: {default: gw-model}", tokens=True)
    asked = json.dumps({"model": 'é"\n'}).encode()
    assert ask(proxy, ("x-api-key", CK), target="/v1/messages?key=mine", body=asked).status == 200
    line = proxy.log_line()
    measured = {
        name: line.pop(name) for name in ("time", "first_event_ms", "total_ms", "bytes_in", "bytes_out")
    }
    assert all(value is not None for value in measured.values())
    assert line == {
        "rule": "gw", "model": 'é"␊', "method": "POST", "host": API, "path": "/v1/messages",
        "upstream": f"{upstream.url}/base", "model_sent": "gw-model", "status": 200,
        "input_tokens": 11, "output_tokens": 7, "outcome": "ok",
    }  # fmt: skip
    text = (proxy.folder / "access.log").read_text()
    assert not any(secret in text for secret in (CK, GW, "mine"))


TOKEN_KEYS = ("model", "input_tokens", "output_tokens", "cache_read_tokens")
START = b'data: {"type":"message_start","message":{"model":"m","usage":{"input_tokens":8,"cache_read_input_tokens":5}}}\n\n'
END = b'data: {"type":"message_delta","usage":{"output_tokens":96}}\n\n'
OVERLOADED = b'data: {"type":"error","error":{"type":"overloaded_error","message":"x"}}\n\n'


STREAMS: dict[str, tuple[tuple[bytes, ...], list[object]]] = {
    "whole": ((START, END), ["m", 8, 96, 5]),
    "cut": ((START[:90], START[90:] + END[:30], END[30:]), ["m", 8, 96, 5]),
    "failed": ((START, OVERLOADED), ["m", 8, None, 5]),
    "silent": ((b"data: {}\n\n",), [None] * 4),
}


@pytest.mark.parametrize("http2", [False, True], ids=["http1", "http2"])
def test_tokens_of_every_stream_are_logged_if_requested(
    envoy: StartEnvoy, recorder: StartRecorder, authority: Authority, http2: bool
) -> None:
    upstream = recorder(Reply(), tls=authority, names=("localhost",), http2=http2)
    proxy = envoy(rules(f"https://localhost:{upstream.port}"), ca=str(authority.ca_file), tokens=True)
    for number, (name, (chunks, told)) in enumerate(STREAMS.items()):
        upstream.script = Stream(chunks, gated=False)
        answer = ask(proxy, ("Accept-Encoding", "gzip"))
        assert (answer.status, answer.body) == (200, b"".join(chunks)), name
        assert upstream.requests[number].header("accept-encoding") == "identity"
        line = proxy.log_line(number)
        assert [line.get(key) for key in TOKEN_KEYS] == told, name
        assert line.get("refusal") == ("upstream: overloaded_error" if name == "failed" else None)


@pytest.mark.parametrize("models", ["", "models: {default: gw-model}"], ids=["filter off", "filter on"])
@pytest.mark.parametrize(
    ("target", "session", "agent", "logged"),
    [
        ("/v1/messages?beta=true", "s-1", "a.1", ("/v1/messages", "s-1", "a.1")),
        ("/v1/sk-mine", "sk-ant-mine", "a b", ("****", "other", None)),
    ],
    ids=["plain names", "something like a key"],
)
def test_a_log_line_names_session_and_agent_with_the_filter_and_without(
    envoy: StartEnvoy,
    recorder: StartRecorder,
    models: str,
    target: str,
    session: str,
    agent: str,
    logged: tuple[str | None, ...],
) -> None:
    proxy = envoy(rules(recorder(json_reply({})).url, models))
    named = (
        ("X-Claude-Code-Session-Id", session),
        ("session_id", "other"),
        ("X-Claude-Code-Agent-Id", agent),
    )
    assert ask(proxy, *named, target=target).status == 200
    line = proxy.log_line()
    assert (line["path"], line.get("session"), line.get("agent")) == logged
    assert "mine" not in str(line)


def test_a_log_line_says_why_a_request_was_refused(envoy: StartEnvoy) -> None:
    proxy = envoy(rules("http://127.0.0.1:9"))
    answer = ask(proxy, ("Origin", "null"))
    assert answer.status == 403
    line = proxy.log_line()
    assert (line["status"], line["path"]) == (403, "/v1/messages")
    assert line["refusal"] in error_of(answer)
