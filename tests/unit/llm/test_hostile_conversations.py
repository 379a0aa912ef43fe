"""The text of the LLM view: bodies that are cut off, damaged, huge or hostile."""

import json
from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from mitm_gateway.llm.conversation import render
from mitm_gateway.llm.read_body import event_data
from mitm_gateway.wire.aws_eventstream import CONTENT_TYPE
from mitm_gateway.wire.sse import EventReader
from support.aws import chunk, converse, frame
from support.llm_view import JSON, SSE, shown, stream, usage_of
from support.table import table


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


@table(
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
        b'{"toolConfig": {"tools": 3}}', b'{"output": {"message": 3}}',
        b"[" * 100_000, b'{"messages": ' + b"[" * 5000 + b"]" * 5000 + b"}", b'{"a": "\\ud800"}',
    ],
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
             "content_block", "thinking", "summary", "image_url", "name", "arguments", "partial_json",
             "toolUse", "toolResult", "reasoningContent", "image", "start", "toolConfig", "inputTokens"]
        )
        , inner | st.sampled_from(["text", "image", "tool_use", "tool_result", "message_start", "reasoning",
                                   "content_block_delta", "content_block_start", "response.completed",
                                   "response.output_item.added", "response.output_text.delta"]),
        max_size=4,
    ),
    max_leaves=12,
)  # fmt: skip


KINDS = ["messageStart", "contentBlockStart", "contentBlockDelta", "messageStop", "metadata", "other"]


@given(st.lists(JSON_VALUES, max_size=4), st.integers(0, 40), st.sampled_from(KINDS))
def test_no_json_body_and_no_event_makes_the_view_raise(values: list[Any], cut: int, kind: str) -> None:
    for value in values:
        body = json.dumps(value).encode()
        render(body, JSON).encode()
        render(body[: len(body) - cut], JSON).encode()
        event = frame(body, event_type=kind, message_type="event")
        render(event, CONTENT_TYPE).encode()
        usage_of(CONTENT_TYPE, event)
    data = b"".join(b"data: " + json.dumps(value).encode() + b"\n\n" for value in values)
    render(data, SSE).encode()
    render(data[: len(data) - cut], SSE).encode()


@given(st.binary(max_size=80))
def test_no_bytes_make_the_view_raise(data: bytes) -> None:
    for content_type in (JSON, SSE, CONTENT_TYPE):
        render(data, content_type).encode()


LINES = st.sampled_from([b"data: {}", b"data:{}", b"data: a", b"event: x", b": c", b"id: 1", b""])


@given(st.lists(LINES), st.sampled_from([b"\n", b"\r\n", b"\r"]))
def test_events_are_those_of_the_incremental_reader(lines: list[bytes], end: bytes) -> None:
    data = end.join(lines) + end + end
    assert [text for text in event_data(data) if text] == EventReader().feed(data)


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


@table("name", BIG_BODIES)
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


@table("name", HOSTILE)
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
