"""A recorded response of each API: `tests/data/streams/<api>-<case>` is shown, counted and restored by its entry."""

from pathlib import Path

from mitm_gateway.exchange.restore_model import AutoRestorer, always
from mitm_gateway.llm.apis import APIS, Api
from mitm_gateway.llm.conversation import render
from mitm_gateway.llm.usage import Usage
from mitm_gateway.wire.aws_eventstream import CONTENT_TYPE
from support.constants import STREAMS
from support.llm_view import usage_of
from support.table import table

CONTENT_TYPES = {".sse": "text/event-stream", ".json": "application/json", ".eventstream": CONTENT_TYPE,
                 ".jsonl": "application/x-jsonl"}  # fmt: skip


def api_of(path: Path) -> Api:
    """Return the API that the longest part of a file's name names."""
    return max((api for api in APIS if path.name.startswith(f"{api.name}-")), key=lambda api: len(api.name))


FILES = sorted(STREAMS.iterdir())
COUNTED = {
    "bedrock-converse-text.eventstream": Usage(None, 9, 2, stop_reason="end_turn", is_stream=True),
    "bedrock-invoke-text.eventstream": Usage("claude-x", 9, 2, stop_reason="end_turn", is_stream=True),
    "chat-completions-text.sse": Usage("gpt-5", 9, 2, 3, None, "stop", is_stream=True),
    "gemini-generate-array.json": Usage("gemini-x", 9, 5, 4, None, "STOP"),
    "gemini-generate-text.sse": Usage("gemini-x", 9, 5, 4, None, "STOP", is_stream=True),
    "messages-text.sse": Usage("claude-sonnet-4-6", 12, 17, 4096, 0, "end_turn", is_stream=True),
    "responses-text.sse": Usage("gpt-5", 9, 2, 3, None, "completed", is_stream=True),
    "vertex-messages-text.sse": Usage("claude-x", 9, 2, stop_reason="end_turn", is_stream=True),
}


@table(
    "api", [api for api in APIS if api.operation in ("chat", "generate_content") or api.is_json_lines],
)  # fmt: skip
def test_every_api_that_answers_with_a_conversation_has_a_recorded_response(api: Api) -> None:
    assert any(api_of(path) is api for path in FILES)


@table(("name", "usage"), COUNTED.items())
def test_a_recorded_response_is_shown_and_counted(name: str, usage: Usage) -> None:
    path = STREAMS / name
    content_type, data = CONTENT_TYPES[path.suffix], path.read_bytes()
    text = render(data, content_type)
    assert "Hello" in text
    assert "note:" not in text
    assert usage_of(content_type, data) == usage
    assert usage_of(content_type, *(data[at : at + 50] for at in range(0, len(data), 50))) == usage


@table("path", [path for path in FILES if path.suffix != ".eventstream"])
def test_every_name_in_a_recorded_response_is_restored(path: Path) -> None:
    data, api = path.read_bytes(), api_of(path)
    name = usage_of(CONTENT_TYPES[path.suffix], data).model or "claude-x"
    restorer = AutoRestorer(always("the-clients-name"), api, CONTENT_TYPES[path.suffix])
    restored = b"".join(
        [*(restorer.feed(data[at : at + 7]) for at in range(0, len(data), 7)), restorer.flush()]
    )
    for key in (b'"model": ', b'"modelVersion": '):
        assert key + f'"{name}"'.encode() not in restored
    assert restored.replace(b'"the-clients-name"', f'"{name}"'.encode()) == data
