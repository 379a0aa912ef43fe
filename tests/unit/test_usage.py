"""What an answer says of itself."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mitm_gateway.usage import MAX_JSON_BYTES, Usage, reader_for


def usage_of(content_type: str, *chunks: bytes) -> Usage:
    reader = reader_for(content_type)
    for chunk in chunks:
        reader.feed(chunk)
    return reader.finish()


def stream(*events: object) -> bytes:
    return b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)


def test_the_messages_api_in_a_stream() -> None:
    first = {
        "input_tokens": 8,
        "cache_read_input_tokens": 5,
        "cache_creation_input_tokens": 3,
        "output_tokens": 1,
    }
    events = stream(
        {"type": "message_start", "message": {"model": "m", "usage": first}},
        {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "usage"}},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 96}},
    )
    assert usage_of("text/event-stream; charset=utf-8", events[:70], events[70:]) == Usage(
        "m", 8, 96, 5, 3, "end_turn"
    )


def test_the_messages_api_as_json() -> None:
    answer = {"model": "m", "stop_reason": "max_tokens", "usage": {"input_tokens": 8, "output_tokens": 9}}
    assert usage_of("application/json", json.dumps(answer).encode()) == Usage(
        "m", 8, 9, stop_reason="max_tokens"
    )


def test_chat_completions() -> None:
    tokens = {"prompt_tokens": 8, "completion_tokens": 9, "prompt_tokens_details": {"cached_tokens": 5}}
    events = stream(
        {"model": "m", "choices": [{"delta": {"content": "x"}, "finish_reason": None}]},
        {"model": "m", "choices": [{"delta": {}, "finish_reason": "stop"}]},
        {"model": "m", "choices": [], "usage": tokens},
    )
    assert usage_of("text/event-stream", events, b"data: [DONE]\n\n") == Usage("m", 8, 9, 5, None, "stop")


def test_the_responses_api() -> None:
    tokens = {"input_tokens": 8, "output_tokens": 9, "input_tokens_details": {"cached_tokens": 5}}
    events = stream({"type": "response.completed", "response": {"model": "m", "usage": tokens}})
    assert usage_of("text/event-stream", events) == Usage("m", 8, 9, 5)


def test_an_error_tells_its_type() -> None:
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}
    assert usage_of("application/json", json.dumps(error).encode()).error == "overloaded_error"
    assert usage_of("text/event-stream", stream(error)).error == "overloaded_error"


def test_a_cut_stream_tells_what_had_come() -> None:
    events = stream({"type": "message_start", "message": {"model": "m", "usage": {"input_tokens": 8}}})
    assert usage_of("text/event-stream", events + b'data: {"usage":{"outp') == Usage("m", 8)


def test_a_very_long_answer_is_not_kept() -> None:
    assert usage_of("application/json", b'{"model":"m","x":"', b"x" * MAX_JSON_BYTES, b'"}') == Usage()


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"5", b'{"usage":5,"message":[],"choices":[5]}', b'{"usage":{"input_tokens":true}}',
             b'{"model":5,"error":"x"}', b"[" * 100_000]
)  # fmt: skip
@pytest.mark.parametrize("kind", ["application/json", "text/event-stream"])
def test_rubbish_tells_nothing(kind: str, body: bytes) -> None:
    data = b"data: " + body + b"\n\n" if kind == "text/event-stream" else body
    assert usage_of(kind, data) == Usage()


@given(st.binary(max_size=200), st.sampled_from(["application/json", "text/event-stream", "", "x"]))
def test_nothing_raises(body: bytes, kind: str) -> None:
    assert isinstance(usage_of(kind, body), Usage)
