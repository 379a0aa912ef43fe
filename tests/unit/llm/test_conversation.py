"""The text of the LLM view."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mitm_gateway.llm.conversation import is_conversation, render
from mitm_gateway.llm.read_body import event_data
from mitm_gateway.wire.aws_eventstream import CONTENT_TYPE
from mitm_gateway.wire.sse import EventReader
from support.constants import STREAMS
from support.eventstreams import chunk, converse, frame

JSON, SSE = "application/json", "text/event-stream; charset=utf-8"


def shown(body: Any) -> str:
    return render(json.dumps(body).encode(), JSON)


def stream(name: str) -> bytes:
    return (STREAMS / f"{name}.sse").read_bytes()


# ---- requests ----


def test_a_request_of_the_messages_api_is_shown() -> None:
    body = {
        "model": "claude-opus-4-8",
        "max_tokens": 32000,
        "thinking": {"type": "enabled", "budget_tokens": 1024},
        "system": [{"type": "text", "text": "You are terse."}, {"type": "text", "text": "Be kind."}],
        "tools": [{"name": "Bash", "input_schema": {}}, {"type": "web_search_20250305", "name": "web"}],
        "messages": [
            {"role": "user", "content": "list the files"},
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "ls will do", "signature": "c2ln"},
                    {"type": "redacted_thinking", "data": "x" * 40},
                    {"type": "tool_use", "id": "toolu_1", "name": "Bash", "input": {"command": "ls\npwd"}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "toolu_1", "is_error": True, "content": "no such"},
                    {
                        "type": "image",
                        "source": {"type": "base64", "media_type": "image/png", "data": "A" * 8000},
                    },
                    {
                        "type": "document",
                        "title": "a.pdf",
                        "source": {"type": "url", "url": "https://h.test/a"},
                    },
                ],
            },
        ],
    }
    assert shown(body) == (
        "model: claude-opus-4-8\n"
        "max_tokens: 32000\n"
        'thinking: {"type": "enabled", "budget_tokens": 1024}\n'
        "\n"
        "system (22 bytes):\n  You are terse.\n  Be kind.\n"
        "\n"
        "tools (2):\n  Bash\n  web (web_search_20250305)\n"
        "\n"
        "user:\n  list the files\n"
        "\n"
        "assistant:\n"
        "  thinking:\n    ls will do\n"
        "  redacted_thinking: 40 bytes\n"
        "  tool call Bash toolu_1:\n    command:\n      ls\n      pwd\n"
        "\n"
        "user:\n"
        "  tool result toolu_1, an error:\n    no such\n"
        "  image: image/png, 6.0 kB\n"
        "  document: https://h.test/a, a.pdf"
    )


def test_a_request_of_chat_completions_is_shown() -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "ls", "arguments": '{"path": "/"}'}}
    body = {
        "model": "gpt-5",
        "tools": [{"type": "function", "function": {"name": "ls"}}],
        "messages": [
            {"role": "system", "content": "Be terse."},
            {"role": "user", "content": [
                {"type": "text", "text": "look"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 400}},
            ]},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "call_1", "content": "etc usr"},
        ],
    }  # fmt: skip
    assert shown(body) == (
        "model: gpt-5\n\ntools (1):\n  ls\n\nsystem:\n  Be terse.\n\n"
        "user:\n  look\n  image: image/png, 300 bytes\n\n"
        "assistant:\n  tool call ls call_1:\n    path: /\n\n"
        "tool:\n  tool result call_1:\n    etc usr"
    )


def test_a_request_of_the_responses_api_is_shown() -> None:
    body = {
        "model": "gpt-5",
        "instructions": "Be terse.",
        "input": [
            {"role": "user", "content": [{"type": "input_text", "text": "look"},
                                         {"type": "input_image", "image_url": "https://h.test/a.png"}]},
            {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]},
            {"type": "function_call", "call_id": "c1", "name": "ls", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c1", "output": "etc usr"},
        ],
    }  # fmt: skip
    assert shown(body) == (
        "model: gpt-5\n\nsystem (9 bytes):\n  Be terse.\n\nuser:\n  look\n  image: https://h.test/a.png\n\n"
        "thinking:\n  hm\n\ntool call ls c1:\n  (no arguments)\n\ntool result c1:\n  etc usr"
    )


def test_a_bare_prompt_is_shown_as_a_message() -> None:
    assert shown({"model": "gpt-5", "input": "hi"}) == "model: gpt-5\n\nuser:\n  hi"


def test_an_empty_list_of_tools_is_not_shown() -> None:
    assert shown({"model": "m", "tools": [], "messages": []}) == "model: m"


def test_long_parts_are_folded_to_a_line_with_their_size() -> None:
    body = json.dumps({"messages": [{"role": "user", "content": "word " * 2000}]}).encode()
    text = render(body, JSON, limit=16_000)
    assert text.endswith("\n  … 6,000 more characters")
    assert len(text) < 4300
    assert "more characters" not in render(body, JSON)


def test_the_middle_of_a_huge_conversation_is_omitted() -> None:
    messages = [{"role": "user", "content": f"{number} " + "w" * 3000} for number in range(2000)]
    text = shown({"system": "S", "messages": messages})
    assert text.startswith("system (1 byte):\n  S\n\nuser:\n  0\n  w")
    assert "messages omitted" in text
    assert "user:\n  1999\n  w" in text
    assert len(text) < 1_100_000


def test_the_whole_prompt_and_every_tool_are_shown() -> None:
    schema = {
        "type": "object",
        "required": ["command"],
        "properties": {
            "command": {"type": "string", "description": "The command to run."},
            "mode": {"type": "string", "enum": ["fast", "safe"]},
            "files": {
                "type": "array",
                "items": {"type": "object", "properties": {"path": {"type": "string"}}},
            },
        },
    }
    prompt = "\n".join(f"Line {number} of a long prompt." for number in range(5000))
    forms: list[dict[str, Any]] = [
        {"name": "Bash", "description": "Runs a command.", "input_schema": schema},
        {
            "type": "function",
            "function": {"name": "Bash", "description": "Runs a command.", "parameters": schema},
        },
        {"type": "function", "name": "Bash", "description": "Runs a command.", "parameters": schema},
        {"toolSpec": {"name": "Bash", "description": "Runs a command.", "inputSchema": {"json": schema}}},
    ]
    for tool in forms:
        tools = {"toolConfig": {"tools": [tool]}} if "toolSpec" in tool else {"tools": [tool]}
        text = shown({"system": prompt, **tools, "messages": []})
        assert "Line 4999 of a long prompt." in text
        assert text.endswith(
            "tools (1):\n  Bash:\n    Runs a command.\n    parameters:\n"
            "      command (string, required): The command to run.\n      mode (string, one of fast, safe)\n"
            "      files (array)\n        path (string)"
        )


def test_long_lines_are_wrapped_and_keep_their_indent() -> None:
    text = shown({"messages": [{"role": "user", "content": "word " * 100 + "x" * 250 + "\n" + "é" * 101}]})
    lines = text.splitlines()
    assert max(map(len, lines)) <= 100
    assert all(line.startswith("  ") for line in lines[1:])
    assert "".join(lines[1:]).count("word") == 100
    assert text.count("x") == 250


def test_a_long_line_without_blanks_is_broken_after_punctuation() -> None:
    text = shown({"messages": [{"role": "user", "content": '{"path":"file.py"},' * 20}]})
    assert all(line.endswith(("},", ":")) for line in text.splitlines()[1:])


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\x04\0\0\0\x03\0\x08\6\0\0\0", "1024 × 768 pixels"),
        (b"GIF89a\x10\0\x20\0\0\0\0\0", "16 × 32 pixels"),
        (b"\xff\xd8\xff\xe0\0\4JF\xff\xc0\0\x0b\x08\0\x20\0\x10\1\1\x11\0", "16 × 32 pixels"),
        (b"RIFF\0\0\0\0WEBPVP8X\n\0\0\0\0\0\0\0\x0f\0\0\x1f\0\0", "16 × 32 pixels"),
        (b"\x89PNG\r\n\x1a\n", None),
        (b"nonsense", None),
    ],
)
def test_an_image_is_shown_by_type_size_and_pixels(data: bytes, expected: str | None) -> None:
    source = {"type": "base64", "media_type": "image/x", "data": base64.b64encode(data).decode()}
    text = shown({"messages": [{"role": "user", "content": [{"type": "image", "source": source}]}]})
    assert text.startswith("user:\n  image: image/x, ")
    assert text.endswith("pixels") is (expected is not None)
    assert expected is None or expected in text


def test_a_call_and_its_result_pair_by_the_call_id_and_later_tools_are_shown() -> None:
    body = {
        "input": [
            {
                "type": "additional_tools",
                "role": "developer",
                "tools": [{"type": "function", "name": "grep"}],
            },
            {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "ls", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "call_1", "output": "etc"},
        ]
    }
    assert shown(body) == (
        "developer:\n  tools (1):\n    grep\n\ntool call ls call_1:\n  (no arguments)\n\n"
        "tool result call_1:\n  etc"
    )


PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\4\0\0\0\3\0\x08\6\0\0\0\0\0\0").decode()


@pytest.mark.parametrize(
    "item",
    [
        {"type": "additional_tools", "tools": [{"name": "grep"}]},
        {"type": "message", "role": "developer", "content": [], "additional_tools": [{"name": "grep"}]},
        {"type": "message", "role": "developer", "tools": [{"name": "grep"}]},
    ],
)
def test_additional_tools_are_shown_at_any_place(item: dict[str, Any]) -> None:
    assert "  tools (1):\n    grep" in shown({"input": [item]})


def test_results_of_tools_that_the_provider_runs_are_shown() -> None:
    screen = {"type": "computer_screenshot", "image_url": f"data:image/png;base64,{PNG}"}
    found = {"type": "web_search_result", "title": "T", "url": "https://u.test", "encrypted_content": "zzz"}
    body = {
        "input": [
            {"type": "computer_call_output", "call_id": "c", "output": screen},
            {"type": "image_generation_call", "id": "i", "result": PNG},
            {
                "role": "user",
                "content": [{"type": "web_search_tool_result", "tool_use_id": "w", "content": [found]}],
            },
        ],
        "tools": [{"type": "mcp", "server_label": "files"}],
    }
    text = shown(body)
    assert "tools (1):\n  files (mcp)" in text
    assert "tool result c:\n  computer_screenshot: image/png, 33 bytes, 1024 × 768 pixels" in text
    assert "generated image: image/png, 33 bytes, 1024 × 768 pixels" in text
    assert "title: T" in text
    assert "zzz" not in text


def test_gemini_is_shown() -> None:
    body = {
        "systemInstruction": {"parts": [{"text": "Be terse."}]},
        "generationConfig": {"temperature": 0.5},
        "tools": [{"functionDeclarations": [{"name": "ls", "description": "Lists."}]}, {"googleSearch": {}}],
        "contents": [
            {"role": "user", "parts": [{"text": "look"}, {"inlineData": {"mimeType": "image/png", "data": "A" * 400}}]},
            {"role": "model", "parts": [{"text": "hm", "thought": True},
                                        {"functionCall": {"name": "ls", "args": {"path": "/"}}}]},
            {"role": "user", "parts": [{"functionResponse": {"name": "ls", "response": {"result": "etc"}}}]},
        ],
    }  # fmt: skip
    assert shown(body) == (
        'generationConfig: {"temperature": 0.5}\n\nsystem (9 bytes):\n  Be terse.\n\n'
        "tools (2):\n  ls:\n    Lists.\n  googleSearch\n\n"
        "user:\n  look\n  image: image/png, 300 bytes\n\n"
        "model:\n  thinking:\n    hm\n  tool call ls:\n    path: /\n\n"
        "user:\n  tool result ls:\n    part:\n      result: etc"
    )
    error = {"error": {"code": 400, "message": "Bad key.", "status": "INVALID_ARGUMENT"}}
    assert shown(error) == "error:\n  INVALID_ARGUMENT: Bad key."


# ---- answers ----


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "messages-text",
            "model: claude-sonnet-4-6\n\nassistant:\n  thinking:\n    The user asks for a greeting. \n"
            "  Hello! How can I help?\n\nstop: end_turn\n\n"
            "usage: in 12, out 17, cache read 4,096, cache written 0",
        ),
        (
            "messages-tool-use",
            "model: claude-sonnet-4-6\n\nassistant:\n  tool call Task toolu_1:\n    model: haiku\n"
            "    path: src/main.py\n\nstop: tool_use\n\n"
            "usage: in 12, out 31, cache read 4,096, cache written 0",
        ),
        (
            "messages-error",
            "error:\n  overloaded_error: Overloaded\n\nmodel: claude-sonnet-4-6\n\nassistant:\n  (empty)\n\n"
            "usage: in 12, out 1, cache read 4,096, cache written 0",
        ),
        (
            "chat-completions-text",
            "model: gpt-5\n\nassistant:\n  Hello\n\nstop: stop\n\nusage: in 9, out 2, cache read 3",
        ),
        (
            "responses-text",
            "model: gpt-5\n\nassistant:\n  Hello\n\nstop: completed\n\nusage: in 9, out 2, cache read 3",
        ),
    ],
)
def test_a_stream_is_shown_as_its_response(name: str, expected: str) -> None:
    assert render(stream(name), SSE) == expected
    assert render(stream(name).replace(b"\n", b"\r\n"), SSE) == expected


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


# ---- what is cut off, damaged or hostile ----


def test_escape_sequences_are_visible_and_not_executed() -> None:
    text = shown({"content": [{"type": "text", "text": "\x1b[2J\x1b]0;title\x07 a\u202eb \x9b31m \x7f"}]})
    assert text == "assistant:\n  ␛[2J␛]0;title␇ a\\u202eb \\u009b31m ␡"


def test_escape_sequences_in_tool_names_are_visible_and_not_executed() -> None:
    assert "\x1b" not in shown({"messages": [], "model": "\x1b[1m", "tools": [{"name": "\x1b]0;t\x07"}]})


def test_the_readable_part_of_truncated_json_is_shown() -> None:
    body = json.dumps({"content": [{"type": "text", "text": "Hello \u00e9"}], "stop_reason": "end_turn"})
    note = "note: the JSON of {} bytes is cut off or damaged; this is the readable part"
    for end, expected in (
        (body.index("llo"), "assistant:\n  He"),
        (body.index("\\u00e9") + 4, "assistant:\n  Hello "),
        (body.index("stop_reason") + 4, "assistant:\n  Hello é"),
        (len(body) - 1, "assistant:\n  Hello é\n\nstop: end_turn"),
    ):
        assert render(body[:end].encode(), JSON) == f"{expected}\n\n{note.format(end)}"


def test_a_damaged_event_produces_a_note() -> None:
    broken = stream("messages-text").replace(b'"text": "! How can I"}', b'"text": "! How')
    text = render(broken, SSE)
    assert "Hello" in text
    assert " help?" in text
    assert "is cut off or damaged" in text


def test_many_damaged_events_produce_few_notes() -> None:
    text = render(b"data: {\n\n" * 500, SSE)
    assert text.count("note:") == 5
    assert "more notes" in text


@pytest.mark.parametrize(
    "body",
    [
        b"", b"null", b"[]", b"{}", b"\xff\xfe", b"<html>", b'{"messages": 3}',
        b'{"messages": [null, 3, [[]]]}',
        b'{"choices": [{"delta": {"tool_calls": 3, "content": 3}, "message": {"tool_calls": 3}}]}',
        b'{"type": "message_delta", "delta": {"usage": 3, "choices": [3], "content": 3}, "usage": 3}',
        b'{"type": "message_start", "message": {"usage": 3, "choices": [3], "content": 3, "output": 3}}',
        b'{"type": "response.output_item.added", "item": {"partial_json": {}, "arguments": 3, "text": {}}}',
        b'{"content": {"a": 1}}', b'{"choices": [null]}', b'{"output": [3], "usage": []}', b'{"error": []}',
        b'{"messages": [{"role": {}, "content": [{"type": []}]}], "tools": [null], "system": {"a": 1}}',
        b"[" * 100_000, b'{"messages": ' + b"[" * 5000 + b"]" * 5000 + b"}", b'{"a": "\\ud800"}',
    ],
    ids=lambda body: str(body[:30]),
)  # fmt: skip
def test_malformed_bodies_are_shown_without_an_error(body: bytes) -> None:
    for content_type in (JSON, SSE, CONTENT_TYPE, ""):
        render(body, content_type).encode()
    render(b"data: " + body + b"\n\n", SSE).encode()


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            ["type", "content", "messages", "input", "role", "text", "tools", "delta", "index", "choices",
             "message", "tool_calls", "function", "usage", "error", "item", "response", "output", "source",
             "content_block", "thinking", "summary", "image_url", "name", "arguments", "partial_json"]
        )
        , inner | st.sampled_from(["text", "image", "tool_use", "tool_result", "message_start", "reasoning",
                                   "content_block_delta", "content_block_start", "response.completed",
                                   "response.output_item.added", "response.output_text.delta"]),
        max_size=4,
    ),
    max_leaves=12,
)  # fmt: skip


@given(st.lists(JSON_VALUES, max_size=4), st.integers(0, 40))
def test_no_json_body_and_no_event_raises(values: list[Any], cut: int) -> None:
    for value in values:
        body = json.dumps(value).encode()
        render(body, JSON).encode()
        render(body[: len(body) - cut], JSON).encode()
    data = b"".join(b"data: " + json.dumps(value).encode() + b"\n\n" for value in values)
    render(data, SSE).encode()
    render(data[: len(data) - cut], SSE).encode()


@given(st.binary(max_size=80))
def test_no_bytes_raise(data: bytes) -> None:
    for content_type in (JSON, SSE, CONTENT_TYPE):
        render(data, content_type).encode()


LINES = st.sampled_from([b"data: {}", b"data:{}", b"data: a", b"event: x", b": c", b"id: 1", b""])


@given(st.lists(LINES), st.sampled_from([b"\n", b"\r\n", b"\r"]))
def test_events_are_those_of_the_incremental_reader(lines: list[bytes], end: bytes) -> None:
    data = end.join(lines) + end + end
    assert [text for text in event_data(data) if text] == [event.data for event in EventReader().feed(data)]


def delta(text: str) -> bytes:
    event = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}
    return f"event: content_block_delta\ndata: {json.dumps(event)}\n\n".encode()


BIG = 10_000_000
MESSAGE = {"role": "user", "content": "word " * 50}
# Made when a test asks for them.
BIG_BODIES: dict[str, Callable[[], tuple[bytes, str]]] = {
    "stream": lambda: (delta(" some words of text") * 76_000, SSE),
    "messages": lambda: (json.dumps({"messages": [MESSAGE] * 34_000}).encode(), JSON),
    "cut off": lambda: (json.dumps({"messages": [MESSAGE] * 34_000}).encode()[:-20], JSON),
    "one event": lambda: (delta("words " * (BIG // 6)), SSE),
    "damaged events": lambda: (b"data: {bad, and more of the same\n\n" * (BIG // 34), SSE),
    "frames": lambda: (
        chunk({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "word "}})
        * 45_000,
        CONTENT_TYPE,
    ),
    "frames of converse": lambda: (
        converse("contentBlockDelta", contentBlockIndex=0, delta={"text": "word "}) * 55_000,
        CONTENT_TYPE,
    ),
    "empty frames": lambda: (frame(b"") * (BIG // 16), CONTENT_TYPE),
    "rubbish": lambda: (bytes(range(256)) * (BIG // 256), JSON),
    "quotes": lambda: (b'"' * BIG, JSON),
}


@pytest.mark.parametrize("name", BIG_BODIES)
def test_ten_megabytes_are_shown_in_a_bounded_text(name: str) -> None:
    data, content_type = BIG_BODIES[name]()
    text = render(data, content_type)
    assert text
    assert len(text) < 1_500_000


HOSTILE: dict[str, Callable[[], bytes]] = {
    "arrays": lambda: b"[" + b"[]," * 300_000 + b"[]]",
    "messages": lambda: b'{"model": "m", "messages": [' + b"{}," * 300_000 + b"{}]}",
    "numbers": lambda: b'{"content": [' + b"1," * 300_000 + b"1]}",
    "keys": lambda: b"{" + b",".join(b'"%d":1' % number for number in range(200_000)) + b"}",
    "strings": lambda: b"[" + b'"",' * 300_000 + b'""]',
    "depth": lambda: b'{"model": "m", "a": [' + b",".join([b"[" * 900 + b"]" * 900] * 200) + b"]}",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_only_the_beginning_of_very_many_values_is_read(name: str) -> None:
    body = HOSTILE[name]()
    assert "has too many values to show in full; this is the beginning" in render(body, JSON)
    event = render(b"data: " + body + b"\n\n" + delta("after it"), SSE)
    assert "  after it\n" in event
    assert "has too many values to show in full" in event
    assert "too many values" in render(frame(body), CONTENT_TYPE)


def test_a_long_text_full_of_json_marks_is_one_value() -> None:
    code = json.dumps({"a": [1, {"b": "\\"}]}) * 30_000
    text = shown(
        {"messages": [{"role": "user", "content": [{"type": "tool_result", "content": code}]}, MESSAGE]}
    )
    assert "too many" not in text
    assert text.endswith("word word")


def test_arguments_with_very_many_values_are_shown_as_text() -> None:
    call = {"type": "tool_use", "name": "Tool", "input": "[" + "1," * 200_000 + "1]"}
    assert "tool call Tool:\n    [1,1," in shown({"content": [call]})


def test_a_number_with_very_many_digits_is_shown_as_text() -> None:
    assert render(b'{"messages": [' + b"9" * 100_000 + b"]}", JSON).startswith("message:\n  9999")


def test_a_long_stream_is_read_at_both_ends() -> None:
    seconds = iter(range(10_000))
    text = render(
        delta("start ") + delta("middle ") * 20_000 + delta("end"), SSE, lambda: next(seconds) * 0.03
    )
    assert "  start middle" in text
    assert text.count("middle ") < 10_000
    assert "middle end\n" in text
    assert "in the middle of the stream are omitted" in text


def test_the_first_and_the_last_of_very_many_parts_are_shown() -> None:
    parts = [{"type": "text", "text": f"part {number}"} for number in range(20_000)]
    text = shown({"messages": [{"role": "user", "content": parts}], "tools": [{"name": "x"}] * 5000})
    assert "  part 0\n  part 1\n" in text
    assert text.endswith("  part 19998\n  part 19999")
    assert " parts omitted\n" in text
    assert len(text) < 400_000


def test_the_middle_of_many_frames_is_omitted() -> None:
    words = [
        converse("contentBlockDelta", contentBlockIndex=0, delta={"text": f"{n} "}) for n in range(20_000)
    ]
    seconds = iter(range(10_000))
    text = render(b"".join(words), CONTENT_TYPE, lambda: next(seconds) * 0.03)
    assert "  0 1 2 3" in text
    assert " 19998 19999" in text
    assert "in the middle of the stream are omitted" in text


def test_a_thoroughly_damaged_stream_is_not_read_to_its_end() -> None:
    text = render(b"data: {bad\n\n" * 1000 + delta("unread"), SSE)
    assert "too many events are damaged" in text
    assert "unread" not in text
    assert "too many events" in render(frame(b"{") * 1000, CONTENT_TYPE)


def test_only_the_first_of_very_many_keys_are_shown() -> None:
    many = {f"key{n}": n for n in range(2000)}
    text = shown({"content": [{"type": "tool_use", "name": "Tool", "input": many}]})
    assert "    key499: 499\n    … 1,500 more keys" in text
    assert len(shown({"messages": [], **many}).splitlines()) < 600


def shows(target: str, content_type: str) -> bool:
    return is_conversation("api.example.com", "POST", target, content_type)


def test_the_view_is_the_default_for_conversations_only() -> None:
    assert shows("/v1/messages?beta=true", "application/json; charset=utf-8")
    assert shows("/base/v1/messages/count_tokens", JSON)
    assert shows("/openai/deployments/x/chat/completions", SSE)
    assert shows("/v1/responses", SSE)
    assert shows("/v1beta/models/gemini-pro:streamGenerateContent?alt=sse", SSE)
    assert shows("/model/anthropic.claude-x/invoke-with-response-stream", CONTENT_TYPE)
    assert shows("/v1/projects/p/locations/l/publishers/a/models/m@1:streamRawPredict", SSE)
    assert not shows("/v1/messages", "text/html")
    assert not shows("/v1/models", JSON)
