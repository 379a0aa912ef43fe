"""Bedrock's Converse API, read as the Messages API: in the view and in the log."""

from mitm_gateway.llm.conversation import render
from mitm_gateway.llm.usage import Usage
from mitm_gateway.wire.aws_eventstream import CONTENT_TYPE
from support.aws import converse_events, frame
from support.constants import CONVERSATIONS
from support.llm_view import JSON, usage_of

RESPONSE = CONVERSATIONS / "converse-response.json"
STREAM = b"".join(converse_events("hello ", "there"))


def test_a_response_is_shown_and_counted_whole_and_as_a_stream() -> None:
    text, told = RESPONSE.with_suffix(".txt").read_text(), Usage(None, 11, 7, 5, None, "tool_use")
    assert usage_of(JSON, RESPONSE.read_bytes()) == told
    assert usage_of(CONTENT_TYPE, STREAM) == told._replace(is_stream=True)
    assert render(STREAM, CONTENT_TYPE) + "\n" == render(RESPONSE.read_bytes(), JSON) + "\n" == text


def test_a_truncated_or_failed_stream_is_marked() -> None:
    assert "note: the stream has not ended" in render(b"".join(converse_events("one ")[:5]), CONTENT_TYPE)
    error = frame(b'{"message": "busy"}', message_type="exception", exception_type="throttlingException")
    text = render(b"".join(converse_events("one ")[:5]) + error, CONTENT_TYPE)
    assert "  one " in text
    assert "error:\n  throttlingException: busy" in text
    assert usage_of(CONTENT_TYPE, error).error == "throttlingException"
