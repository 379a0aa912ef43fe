"""The text of the LLM view: responses and streams."""

import json
from pathlib import Path
from typing import Any

from mitm_gateway.llm.conversation import render
from mitm_gateway.wire.aws_eventstream import CONTENT_TYPE
from support.aws import chunk, frame
from support.constants import CONVERSATIONS, STREAMS
from support.llm_view import SSE, shown, stream
from support.table import table


@table("text", sorted(CONVERSATIONS.glob("*.sse.txt")))
def test_a_stream_is_shown_as_its_response(text: Path) -> None:
    data, expected = (STREAMS / text.stem).read_bytes(), text.read_text().rstrip("\n")
    assert render(data, SSE) == expected
    assert render(data.replace(b"\n", b"\r\n"), SSE) == expected


def test_a_running_stream_shows_what_has_arrived() -> None:
    data = stream("messages-tool-use")
    text = render(data[: data.index(b"main.py")], SSE)
    assert 'tool call Task toolu_1:\n    {"model": "haiku", "path": "src/' in text
    assert text.endswith("note: the stream has not ended")


def test_an_event_that_is_still_arriving_is_not_damaged() -> None:
    running = stream("chat-completions-text")
    running = running[: running.rfind(b'"lo"') + 2]
    text = render(running, SSE)
    assert text.startswith("model: gpt-5\n\nassistant:\n  Hell\n\nnote: an event of ")
    assert text.endswith(" bytes is still arriving\n\nnote: the stream has not ended")
    assert "part" not in render(running[: running.rfind(b"\n\n") + 2], SSE)


def test_tool_calls_of_a_chat_stream_are_assembled() -> None:
    def event(**delta: Any) -> bytes:
        return b"data: " + json.dumps({"choices": [{"index": 0, "delta": delta}]}).encode() + b"\n\n"

    calls = [
        {"index": 0, "id": "c0", "function": {"name": "ls", "arguments": '{"pa'}},
        {"index": 1, "id": "c1", "function": {"name": "cat", "arguments": "{}"}},
        {"index": 0, "function": {"arguments": 'th": "/"}'}},
    ]
    data = event(reasoning_content="hm") + b"".join(event(tool_calls=[call]) for call in calls)
    assert render(data, SSE) == (
        "assistant:\n  thinking:\n    hm\n  tool call ls c0:\n    path: /\n"
        "  tool call cat c1:\n    (no arguments)\n\n"
        "note: the stream has not ended"
    )


def test_a_responses_stream_is_shown_before_its_end() -> None:
    events = [
        {"type": "response.created", "response": {"model": "gpt-5", "status": "in_progress", "output": []}},
        {"type": "response.output_item.added", "output_index": 0, "item": {"type": "reasoning"}},
        {"type": "response.reasoning_summary_text.delta", "output_index": 0, "delta": "hm"},
        {"type": "response.output_item.added", "output_index": 1,
         "item": {"type": "function_call", "name": "ls", "call_id": "c1", "arguments": ""}},
        {"type": "response.function_call_arguments.delta", "output_index": 1, "delta": '{"path": "/"'},
    ]  # fmt: skip
    data = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)
    assert render(data, SSE) == (
        'model: gpt-5\n\nthinking:\n  hm\n\ntool call ls c1:\n  {"path": "/"\n\n'
        "note: the stream has not ended"
    )


def test_complete_responses_are_shown() -> None:
    content = [{"type": "text", "text": "Hello"}]
    usage = {"input_tokens": 1, "output_tokens": 2}
    assert shown({"model": "m", "content": content, "stop_reason": "end_turn", "usage": usage}) == (
        "model: m\n\nassistant:\n  Hello\n\nstop: end_turn\n\nusage: in 1, out 2"
    )
    choice = {"message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}
    assert shown({"choices": [choice]}) == "assistant:\n  Hello\n\nstop: stop"
    assert shown({"input_tokens": 12}) == "usage: in 12"


def test_errors_are_shown() -> None:
    error = {"type": "error", "error": {"type": "invalid_request_error", "message": "no"}}
    assert shown(error) == "error:\n  invalid_request_error: no"
    assert shown({"error": {"message": "no", "code": 404}}) == "error:\n  404: no"
    assert shown({"error": "no"}) == "error:\n  no"
    error = {"error": {"code": 400, "message": "Bad key.", "status": "INVALID_ARGUMENT"}}
    assert shown(error) == "error:\n  INVALID_ARGUMENT: Bad key."


# ---- Bedrock ----


def bedrock_stream() -> bytes:
    events = [line[6:] for line in stream("messages-text").splitlines() if line.startswith(b"data: ")]
    return b"".join(chunk(json.loads(event)) for event in events)


def test_bedrocks_frames_are_shown_like_the_stream_inside_them() -> None:
    assert render(bedrock_stream(), CONTENT_TYPE) == render(stream("messages-text"), SSE)


def test_bedrocks_errors_and_a_cut_off_frame_are_reported() -> None:
    error = frame(b'{"message": "slow down"}', message_type="exception", exception_type="throttlingException")
    text = render(bedrock_stream()[:400] + b"", CONTENT_TYPE)
    assert "note: " in text
    assert render(error, CONTENT_TYPE) == "error:\n  throttlingException: slow down"
    assert "are not a complete frame" in render(bedrock_stream()[:-3], CONTENT_TYPE)
