"""The client's names in the responses of every API, whatever their Content-Type says."""

import json

from mitm_gateway.exchange.restore_model import AutoRestorer, always, by_name
from mitm_gateway.llm.apis import OTHER, Api
from mitm_gateway.llm.body_kind import kind_of
from support.endpoints import API_BY_NAME
from support.table import table

JSON, SSE = "application/json", "text/event-stream"


def restored(api: Api, content_type: str, *chunks: bytes, names: dict[str, str] | None = None) -> bytes:
    one_name = always("asked", keeps_resource=api.has_resource_names)
    restorer = AutoRestorer(by_name(names.get) if names else one_name, api, content_type)
    return b"".join([*map(restorer.feed, chunks), restorer.flush()])


@table(
    ("api", "before", "after"),
    [
        ("messages", b'{"id":"x","model":"sent"}', b'{"id":"x","model":"asked"}'),
        ("other", b'{"id":"x","model":{"id":"sent","n":1}}', b'{"id":"x","model":{"id":"asked","n":1}}'),
        ("model", b'{"name":"models/sent","displayName":"Sent"}', b'{"name":"models/asked","displayName":"Sent"}'),
        ("model", b'{"type":"model","id":"sent","x":{"id":"sent"}}',
         b'{"type":"model","id":"asked","x":{"id":"sent"}}'),
        ("gemini-generate", b'{"candidates":[{"x":1}],"modelVersion":"sent-001"}',
         b'{"candidates":[{"x":1}],"modelVersion":"asked"}'),
        ("gemini-generate", b'[{"modelVersion":"sent"}\n,\n{"modelVersion":"sent"}]',
         b'[{"modelVersion":"asked"}\n,\n{"modelVersion":"asked"}]'),
        ("gemini", b'{"model":"models/sent"}', b'{"model":"models/asked"}'),
        ("chat-completions", b'{"model":"accounts/fireworks/models/sent"}', b'{"model":"asked"}'),
        ("realtime", b'{"session":{"model":"sent"},"model":"sent"}',
         b'{"session":{"model":"asked"},"model":"sent"}'),
    ],
)  # fmt: skip
def test_a_json_response_names_the_clients_model(api: str, before: bytes, after: bytes) -> None:
    assert restored(API_BY_NAME[api], JSON, before) == after
    assert restored(API_BY_NAME[api], JSON, *(bytes([byte]) for byte in before)) == after


def test_the_results_of_a_batch_get_their_names_back_line_by_line() -> None:
    lines = [
        {"custom_id": "1", "result": {"type": "succeeded", "message": {"model": "up-a", "content": []}}},
        {"custom_id": "2", "result": {"type": "errored", "error": {"message": {"model": "up-a"}}}},
        {"custom_id": "3", "result": {"type": "succeeded", "message": {"model": "dated"}}},
    ]
    raw = "\n".join(map(json.dumps, lines)).encode()
    expected = raw.replace(b'"message": {"model": "up-a", "content"', b'"message": {"model": "a", "content"')
    for content_type in ("application/binary", "application/x-jsonl", JSON, ""):
        got = restored(
            API_BY_NAME["message-batch-results"], content_type, raw[:50], raw[50:], names={"up-a": "a"}
        )
        assert got == expected


@table("content_type", ["", "text/plain", JSON, SSE])
def test_the_first_bytes_tell_a_stream_from_json(content_type: str) -> None:
    stream = b'data: {"model":"sent"}\n\nevent: x\ndata: {"message":{"model":"sent"}}\n\n'
    assert restored(OTHER, content_type, stream) == stream.replace(b"sent", b"asked")
    assert restored(OTHER, content_type, *(bytes([b]) for b in stream)) == stream.replace(b"sent", b"asked")
    assert restored(OTHER, content_type, b' \n{"model":', b'"sent"}') == b' \n{"model":"asked"}'


@table("text", [b"", b"dat", b"plain", b"<html>", b"\xef\xbb", b"\xff\x00"])
def test_any_other_body_passes_unchanged(text: bytes) -> None:
    assert restored(OTHER, "text/plain", text) == text
    assert restored(OTHER, "", *(bytes([byte]) for byte in text)) == text


def test_bytes_are_held_only_until_the_kind_is_certain() -> None:
    restorer = AutoRestorer(always("asked"), OTHER, "")
    assert restorer.feed(b"dat") == b""
    assert restorer.feed(b"e: ") == b"date: "
    assert AutoRestorer(always("asked"), OTHER, SSE).feed(b": ping") == b": ping"


@table(
    ("content_type", "start", "kind"),
    [
        (JSON, b"data: 1", "sse"),
        (SSE, b'{"error":1}', "json"),
        ("application/problem+json; charset=utf-8", b"x", "json"),
        ("application/vnd.amazon.eventstream", b"{", "aws_eventstream"),
        ("text/plain", b"\xef\xbb\xbf{", "json"),
        ("text/plain", b"even", None),
        ("text/plain", b"evening", "other"),
        ("", b"", None),
    ],
)
def test_the_type_and_the_first_bytes_tell_the_kind_of_a_body(
    content_type: str, start: bytes, kind: str | None
) -> None:
    assert kind_of(content_type, start) == kind
