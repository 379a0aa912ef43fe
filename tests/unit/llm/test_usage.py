"""Model, token counts and stop reason of a response."""

import json
from typing import Any

import pytest

from mitm_gateway.llm import usage
from mitm_gateway.llm.usage import MAX_JSON_BYTES, Usage, usage_in
from mitm_gateway.wire.aws_eventstream import CONTENT_TYPE
from support.aws import chunk
from support.counted_work import work
from support.llm_view import usage_of
from support.table import table

FIRST = {"type": "message_start", "message": {"model": "m", "usage": {"input_tokens": 8}}}
DELTA = {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "usage"}}
LAST = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 96}}
WHOLE = {"response": {"object": "response", "status": "completed", "model": "m", "instructions": "x" * 300_000,
         "usage": {"input_tokens": 8, "output_tokens": 96}}}  # fmt: skip


def stream(*events: object) -> bytes:
    return b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)


def of_json(answer: object) -> Usage:
    return usage_of("application/json", json.dumps(answer).encode())


def of_stream(*events: object) -> Usage:
    return usage_of("text/event-stream", stream(*events))


def test_json_of_the_messages_api_is_counted() -> None:
    answer = {"model": "m", "stop_reason": "max_tokens", "usage": {"input_tokens": 8, "output_tokens": 9}}
    assert of_json(answer) == Usage("m", 8, 9, stop_reason="max_tokens")


def test_the_responses_api_is_counted() -> None:
    tokens = {"input_tokens": 8, "output_tokens": 9, "input_tokens_details": {"cached_tokens": 5}}
    answer = {"object": "response", "status": "completed", "model": "m", "usage": tokens}
    begun = {"object": "response", "status": "in_progress", "model": "m"}
    told = Usage("m", 8, 9, 5, None, "completed")
    assert of_stream({"response": begun}, {"response": answer}) == told._replace(is_stream=True)
    assert of_json(answer) == told
    cut = {**answer, "status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}}
    assert of_json(cut).stop_reason == "max_output_tokens"
    assert of_stream({"response": begun}).stop_reason is None


@table("count", [-1, 10**12, 10**400, 1.5, "8", None, True])
def test_impossible_counts_are_ignored(count: object) -> None:
    tokens = {"input_tokens": 8, "output_tokens": count, "cache_read_input_tokens": count}
    assert of_json({"usage": tokens}) == Usage(input_tokens=8)


@table("name", ["x" * 65, "two words", "\x1b[31m", "é", ""])
def test_malformed_names_are_ignored(name: str) -> None:
    answer = {"stop_reason": name, "error": {"type": name, "code": name}}
    assert of_json(answer) == Usage(error="error")
    assert of_json({"model": name * 10 + "\n"}) == Usage()


@table("value", [[], {}, [[]], 1.5, None])
def test_values_of_other_types_are_ignored(value: object) -> None:
    names = ("status", "model", "stop_reason", "choices", "usage", "incomplete_details", "message", "delta")
    answer = {"object": "response", **dict.fromkeys(names, value)}
    assert of_json(answer) == Usage()


def test_bytes_that_are_not_a_frame_end_the_reading_and_keep_no_memory() -> None:
    data = chunk(FIRST) + chunk(LAST)
    told = Usage("m", 8, 96, stop_reason="end_turn", is_stream=True)
    assert usage_of(CONTENT_TYPE, data, b"\xff" * 2_000_000, data) == told


def test_an_error_is_reported_by_its_type() -> None:
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}
    assert of_json(error).error == "overloaded_error"
    assert of_stream(error).error == "overloaded_error"
    codes = {"server_error": "server_error", None: "error", 429: "error_429", True: "error", -1: "error"}
    for code, told in codes.items():
        inner = {"code": code, "message": "busy"}
        for event in ({"type": "error", **inner}, {"error": inner}):
            assert of_stream(event).error == told


def test_a_truncated_stream_reports_what_it_contained() -> None:
    events = stream(FIRST)
    assert usage_of("text/event-stream", events + b'data: {"usage":{"outp') == Usage("m", 8, is_stream=True)


def test_a_very_long_response_is_not_kept() -> None:
    assert usage_of("application/json", b'{"model":"m","x":"', b"x" * MAX_JSON_BYTES, b'"}') == Usage()


@table(
    "body", [b"", b"[]", b"5", b'{"usage":5,"message":[],"choices":[5]}', b'{"usage":{"input_tokens":true}}',
             b'{"model":5,"error":"x"}', b"[" * 100_000]
)  # fmt: skip
@table("kind", ["application/json", "text/event-stream"])
def test_malformed_bodies_report_nothing(kind: str, body: bytes) -> None:
    data = b"data: " + body + b"\n\n" if kind == "text/event-stream" else body
    assert usage_of(kind, data) == Usage(is_stream=kind == "text/event-stream")


@table("content_type", ["", "text/plain", "application/json"])
def test_the_first_bytes_tell_a_stream(content_type: str) -> None:
    events = stream(FIRST)
    assert usage_of(content_type, events[:3], events[3:]) == Usage("m", 8, is_stream=True)
    assert usage_of("text/event-stream", b'{"model":"m"}') == Usage("m")


def test_gemini_is_counted() -> None:
    tokens = {"promptTokenCount": 6, "toolUsePromptTokenCount": 2, "candidatesTokenCount": 5}
    tokens |= {"thoughtsTokenCount": 4, "cachedContentTokenCount": 3}
    first = {"candidates": [{"content": {"parts": [{"text": "a"}]}}], "modelVersion": "g"}
    last = {"candidates": [{"finishReason": "STOP"}], "usageMetadata": tokens, "modelVersion": "g"}
    expected = Usage("g", 8, 9, 3, None, "STOP")
    assert of_stream(first, last) == expected._replace(is_stream=True)
    assert of_json([first, last]) == expected
    assert of_json(last) == expected
    error = {"error": {"code": 400, "message": "x", "status": "INVALID_ARGUMENT"}}
    assert of_json(error).error == "INVALID_ARGUMENT"
    blocked = {"promptFeedback": {"blockReason": "SAFETY"}, "modelVersion": "g"}
    assert of_stream(blocked).stop_reason == "SAFETY"


def test_a_run_of_an_assistant_ends_with_its_status() -> None:
    run = {"object": "thread.run", "model": "m", "status": "queued", "usage": None}
    ended = {**run, "status": "completed"}
    assert of_stream(run).stop_reason is None
    assert of_stream(run, ended).stop_reason == "completed"


def test_geminis_interactions_are_counted() -> None:
    tokens = {"total_input_tokens": 6, "total_tool_use_tokens": 2, "total_output_tokens": 5}
    tokens |= {"total_thought_tokens": 4, "total_cached_tokens": 3}
    first = {"event_type": "interaction.created", "interaction": {"model": "g", "status": "in_progress"}}
    last = {"interaction": {"id": "i", "status": "requires_action", "usage": tokens}}
    expected = Usage("g", 8, 9, 3, None, "requires_action")
    assert of_stream(first).stop_reason is None
    assert of_stream(first, last) == expected._replace(is_stream=True)
    whole = {**last["interaction"], "object": "interaction", "model": "g"}
    assert of_json(whole) == expected


@table(
    ("response", "written", "longer"),
    [
        ({"usage": {"input_tokens": 1, "cache_creation_input_tokens": 9,
                    "cache_creation": {"ephemeral_5m_input_tokens": 5, "ephemeral_1h_input_tokens": 4}}}, 9, 4),
        ({"usage": {"input_tokens": 20, "input_tokens_details": {
            "cached_tokens": 3, "cache_write_tokens": 9,
            "cache_write_tokens_details": {"ttl_30m_tokens": 5, "ttl_12h_tokens": 4}}}}, 9, 4),
        ({"usage": {"prompt_tokens": 20, "prompt_tokens_details": {"cache_write_tokens": 9}}}, 9, None),
        ({"output": {"message": {}}, "usage": {"inputTokens": 1, "cacheWriteInputTokens": 9, "cacheDetails": [
            {"ttl": "5m", "inputTokens": 5}, {"ttl": "1h", "inputTokens": 4}]}}, 9, 4),
    ],
)  # fmt: skip
def test_tokens_written_to_the_cache_are_counted_by_their_time(
    response: dict[str, Any], written: int, longer: int | None
) -> None:
    found = of_json(response)
    assert (found.cache_creation_tokens, found.cache_creation_long_tokens) == (written, longer)


@table(
    ("response", "tier"),
    [
        ({"usage": {"input_tokens": 1, "service_tier": "standard", "inference_geo": "global"}}, None),
        ({"usage": {"input_tokens": 1, "service_tier": "standard", "inference_geo": "us"}}, "us"),
        ({"usage": {"input_tokens": 1, "speed": "fast"}}, "fast"),
        ({"usage": {"input_tokens": 1}, "service_tier": "flex"}, "flex"),
        ({"usage": {"input_tokens": 1}, "service_tier": "default"}, None),
        ({"usage": {"prompt_tokens": 1, "prompt_tokens_details": {"audio_tokens": 5}}}, "audio"),
        ({"usageMetadata": {"promptTokenCount": 1, "promptTokensDetails": [{"modality": "AUDIO"}]}}, "audio"),
        (
            {"usageMetadata": {"responseTokensDetails": [{"modality": "TEXT"}, {"modality": "AUDIO"}]}},
            "audio",
        ),
        ({"usage": {"input_tokens": 1, "output_token_details": {"audio_tokens": 5}}}, "audio"),
        ({"usage": {"input_tokens": 1, "service_tier": ["x"]}, "service_tier": 3}, None),
    ],
)
def test_a_tier_with_its_own_prices_is_named(response: dict[str, Any], tier: str | None) -> None:
    assert Usage().updated(response).special_tier == tier


def test_the_tier_that_served_replaces_the_one_that_was_asked_for() -> None:
    asked = {"response": {"service_tier": "priority"}}
    served = {"response": {"service_tier": "default", "usage": {"input_tokens": 1}}}
    assert Usage().updated(asked).updated(served).special_tier is None


def test_a_long_response_is_read_at_its_ends() -> None:
    events = stream(FIRST, *[DELTA] * 5_000, LAST)
    bodies = {
        "events": ("text/event-stream", events),
        "CRLF": ("text/event-stream", events.replace(b"\n", b"\r\n")),
        "the end alone": ("text/event-stream", stream(*[DELTA] * 5_000, WHOLE)),
        "frames": (CONTENT_TYPE, b"".join(map(chunk, [FIRST, *[DELTA] * 3_000, LAST]))),
        "JSON": ("application/json", json.dumps({"data": [0.5] * 200_000, **WHOLE["response"]}).encode()),
    }
    for name, (content_type, body) in bodies.items():
        found = usage_in(content_type, body)
        assert (found.model, found.input_tokens, found.output_tokens) == ("m", 8, 96), name


@table("event", [b'data: {"usage":{"a":1}}\n\n', b"data: {}\n\n"])
def test_events_in_the_middle_take_no_work(event: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_HEAD_BYTES", "_TAIL_BYTES"):
        monkeypatch.setattr(usage, name, 400)

    def steps(count: int) -> int:
        return work(lambda: usage_in("text/event-stream", event * count))

    assert steps(4_000) < steps(2_000) * 1.1


def test_of_very_many_frames_the_first_ones_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_HEAD_BYTES", "_TAIL_BYTES", "_MAX_FRAMES"):
        monkeypatch.setattr(usage, name, 500)
    empty = (16).to_bytes(4, "big") + bytes(12)
    body = chunk(FIRST) + empty * 500 + chunk(LAST)
    found = usage_in(CONTENT_TYPE, body)
    assert (found.model, found.input_tokens, found.output_tokens) == ("m", 8, None)
    assert work(lambda: usage_in(CONTENT_TYPE, body * 2)) < work(lambda: usage_in(CONTENT_TYPE, body)) * 1.1


def test_a_response_of_too_many_values_is_not_read() -> None:
    assert usage_in("application/json", b'{"model":"m","a":[' + b"[]," * 400_000 + b"0]}") == Usage()
