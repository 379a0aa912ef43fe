"""Bedrock's Converse API, read as the Messages API: in the view and in the log."""

import json

from mitm_gateway.llm.conversation import render
from mitm_gateway.llm.usage import Usage
from mitm_gateway.wire.aws_eventstream import CONTENT_TYPE
from support.aws import converse_events, frame
from support.llm_view import shown, usage_of

STREAM = b"".join(converse_events("hello ", "there"))


REQUEST = {
    "system": [{"text": "You are terse."}, {"cachePoint": {"type": "default"}}],
    "inferenceConfig": {"maxTokens": 512},
    "toolConfig": {"tools": [{"toolSpec": {"name": "Bash", "inputSchema": {"json": {}}}}]},
    "messages": [
        {"role": "user", "content": [{"text": "list the files"}]},
        {"role": "assistant", "content": [
            {"reasoningContent": {"reasoningText": {"text": "ls will do", "signature": "c2ln"}}},
            {"toolUse": {"toolUseId": "tooluse_1", "name": "Bash", "input": {"command": "ls"}}},
        ]},
        {"role": "user", "content": [
            {"toolResult": {"toolUseId": "tooluse_1", "status": "error",
                            "content": [{"text": "no such"}, {"json": {"code": 2}}]}},
            {"image": {"format": "png", "source": {"bytes": "A" * 8000}}},
            {"document": {"format": "pdf", "name": "notes", "source": {"s3Location": {"uri": "s3://b/k"}}}},
        ]},
    ],
}  # fmt: skip
SHOWN = """\
inferenceConfig: {"maxTokens": 512}

system (14 bytes):
  You are terse.
  part:
    cachePoint: {"type": "default"}

tools (1):
  Bash

user:
  list the files

assistant:
  thinking:
    ls will do
  tool call Bash tooluse_1:
    command: ls

user:
  tool result tooluse_1, an error:
    no such
    {"code": 2}
  image: png, 6.0 kB
  document: pdf, s3://b/k, notes"""


def test_a_request_is_shown() -> None:
    assert shown(REQUEST) == SHOWN


ANSWER = """\
assistant:
  thinking:
    a thought
  hello there
  tool call Bash tooluse_1:
    command: ls

stop: tool_use

usage: in 11, out 7, cache read 5"""


def test_a_response_is_shown_and_counted() -> None:
    content = [
        {"reasoningContent": {"reasoningText": {"text": "a thought"}}},
        {"text": "hello there"},
        {"toolUse": {"toolUseId": "tooluse_1", "name": "Bash", "input": {"command": "ls"}}},
    ]
    answer = {
        "output": {"message": {"role": "assistant", "content": content}},
        "stopReason": "tool_use",
        "usage": {"inputTokens": 11, "outputTokens": 7, "totalTokens": 23, "cacheReadInputTokens": 5},
        "metrics": {"latencyMs": 12},
    }
    assert shown(answer) == ANSWER
    told = Usage(None, 11, 7, 5, None, "tool_use")
    assert usage_of("application/json", json.dumps(answer).encode()) == told


def test_a_stream_is_shown_and_counted() -> None:
    assert render(STREAM, CONTENT_TYPE) == ANSWER


def test_a_truncated_or_failed_stream_is_marked() -> None:
    assert "note: the stream has not ended" in render(b"".join(converse_events("one ")[:5]), CONTENT_TYPE)
    error = frame(b'{"message": "busy"}', message_type="exception", exception_type="throttlingException")
    text = render(b"".join(converse_events("one ")[:5]) + error, CONTENT_TYPE)
    assert "  one " in text
    assert "error:\n  throttlingException: busy" in text
    assert usage_of(CONTENT_TYPE, error).error == "throttlingException"
