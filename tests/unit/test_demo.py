"""The demo gateway, over loopback with httpx."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from mitm_gateway.demo import DemoGateway, last_words
from support.table import table

BEARER = {"authorization": "Bearer demo-key"}
QUESTION = {"model": "claude-x", "max_tokens": 9, "messages": [{"role": "user", "content": "hello there"}]}


@pytest.fixture
async def gateway() -> AsyncIterator[httpx.AsyncClient]:
    demo = DemoGateway(pause_s=0)
    port = demo.start()
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=BEARER, verify=False) as client:
        yield client
    await demo.stop()


def events(stream: str) -> list[tuple[str, dict[str, Any]]]:
    """The events of a whole stream as pairs of name and data."""
    pairs = (event.split("\n", 1) for event in stream.strip().split("\n\n"))
    return [(name.removeprefix("event: "), json.loads(data.removeprefix("data: "))) for name, data in pairs]


@pytest.mark.parametrize("authorization", [None, "Bearer", "Basic dTpw", "demo-key"], ids=str)
async def test_anything_but_a_bearer_token_is_refused(
    gateway: httpx.AsyncClient, authorization: str | None
) -> None:
    del gateway.headers["authorization"]
    headers = {"x-api-key": "demo-key"} | ({"authorization": authorization} if authorization else {})
    answer = await gateway.post("/v1/messages", json=QUESTION, headers=headers)
    assert answer.status_code == 401
    assert answer.headers["x-should-retry"] == "false"
    assert answer.json() == {
        "type": "error",
        "error": {
            "type": "authentication_error",
            "message": 'the demo gateway wants "Authorization: Bearer <anything>"',
        },
        "request_id": answer.headers["request-id"],
    }


async def test_an_api_key_beside_the_token_is_shown_and_not_refused(gateway: httpx.AsyncClient) -> None:
    answer = await gateway.post("/v1/messages", json=QUESTION, headers={"x-api-key": "left-over"})
    assert answer.status_code == 200
    assert "- x-api-key: ****\n" in answer.json()["content"][0]["text"]


async def test_the_reply_contains_model_headers_and_the_last_words(gateway: httpx.AsyncClient) -> None:
    answer = await gateway.post("/v1/messages", json=QUESTION, headers={"Editor-Version": "vscode/1.104.0"})
    message = answer.json()
    text = message["content"][0]["text"]
    assert "asked for the model claude-x." in text
    assert "- editor-version: vscode/1.104.0\n" in text
    assert text.endswith("You said: hello there")
    assert (message["model"], message["stop_reason"]) == ("claude-x", "end_turn")
    assert set(message["usage"]) == {"input_tokens", "output_tokens"}


@pytest.mark.parametrize(
    ("token", "shown"),
    [("demo-key", "Bearer ****"), ("0123456789abcdef1a2b", "Bearer ****1a2b")],
    ids=["short", "long"],
)
async def test_the_token_is_echoed_masked(gateway: httpx.AsyncClient, token: str, shown: str) -> None:
    answer = await gateway.post("/v1/messages", json=QUESTION, headers={"authorization": f"Bearer {token}"})
    text = answer.json()["content"][0]["text"]
    assert f"- authorization: {shown}\n" in text
    assert text.split("Headers it saw:\n")[1].startswith("- authorization: ")
    assert token not in text


async def test_a_stream_is_the_events_of_the_messages_api(gateway: httpx.AsyncClient) -> None:
    answer = await gateway.post("/v1/messages?beta=true", json=QUESTION | {"stream": True})
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    seen = events(answer.text)
    names = [name for name, _ in seen]
    words = names.count("content_block_delta")
    assert names == [
        "message_start",
        "content_block_start",
        "ping",
        *["content_block_delta"] * words,
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert all(data["type"] == name for name, data in seen)
    assert seen[-2][1]["delta"]["stop_reason"] == "end_turn"
    assert seen[-2][1]["usage"] == {"output_tokens": words}
    text = "".join(data["delta"]["text"] for name, data in seen if name == "content_block_delta")
    assert text.startswith("Hello from the demo gateway!")
    assert text.endswith("You said: hello there")


async def test_words_arrive_one_by_one() -> None:
    # A pause that no test outlives: the first events are here although the first word never comes.
    demo = DemoGateway(pause_s=3600)
    port = demo.start()
    try:
        async with httpx.AsyncClient(headers=BEARER, verify=False) as client:
            body = QUESTION | {"stream": True}
            async with client.stream("POST", f"http://127.0.0.1:{port}/v1/messages", json=body) as answer:
                seen = ""
                async for chunk in answer.aiter_text():
                    seen += chunk
                    if "event: ping" in seen:
                        break
                assert "content_block_delta" not in seen
    finally:
        await demo.stop()


async def test_stop_closes_the_port() -> None:
    demo = DemoGateway()
    port = demo.start()
    await demo.stop()
    with pytest.raises(OSError, match="Connect call failed"):
        await asyncio.open_connection("127.0.0.1", port)


async def test_count_tokens_gives_a_number(gateway: httpx.AsyncClient) -> None:
    short = await gateway.post("/v1/messages/count_tokens", json=QUESTION)
    long = await gateway.post("/v1/messages/count_tokens", json=QUESTION | {"system": "word " * 100})
    assert 0 < short.json()["input_tokens"] < long.json()["input_tokens"]


async def test_models_come_in_anthropics_shape(gateway: httpx.AsyncClient) -> None:
    page = (await gateway.get("/v1/models?limit=1000")).json()
    assert {model["type"] for model in page["data"]} == {"model"}
    assert all("claude" in model["id"] for model in page["data"])
    assert (page["first_id"], page["last_id"]) == (page["data"][0]["id"], page["data"][-1]["id"])
    assert page["has_more"] is False


async def test_chat_completions_answer_at_once(gateway: httpx.AsyncClient) -> None:
    answer = (await gateway.post("/v1/chat/completions", json=QUESTION)).json()
    assert answer["object"] == "chat.completion"
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["choices"][0]["message"]["content"].endswith("You said: hello there")
    assert answer["usage"]["total_tokens"] > 0


@pytest.mark.parametrize("usage", [False, True], ids=["plain", "usage"])
async def test_chat_completions_stream_in_chunks(gateway: httpx.AsyncClient, usage: bool) -> None:
    body = QUESTION | {"stream": True, "stream_options": {"include_usage": usage}}
    stream = (await gateway.post("/v1/chat/completions", json=body)).text
    *lines, done = (line.removeprefix("data: ") for line in stream.strip().split("\n\n"))
    chunks = [json.loads(line) for line in lines]
    assert done == "[DONE]"
    assert {chunk["model"] for chunk in chunks} == {"claude-x"}
    assert ("usage" in chunks[-1]) is usage
    deltas = [choice["delta"].get("content", "") for chunk in chunks for choice in chunk["choices"]]
    assert "".join(deltas).endswith("You said: hello there")


async def test_head_is_answered_without_a_token(gateway: httpx.AsyncClient) -> None:
    del gateway.headers["authorization"]
    assert [(await gateway.head(path)).status_code for path in ("/", "/api/hello")] == [200, 200]


@pytest.mark.parametrize(
    ("method", "path", "status", "kind"),
    [
        ("GET", "/v1/files", 404, "not_found_error"),
        ("GET", "/", 404, "not_found_error"),
        ("GET", "/v1/messages", 405, "invalid_request_error"),
        ("BREW", "/v1/messages", 405, "api_error"),
    ],
    ids=["path", "root", "method", "strange method"],
)
async def test_an_unknown_path_is_an_error_in_anthropics_form(
    gateway: httpx.AsyncClient, method: str, path: str, status: int, kind: str
) -> None:
    answer = await gateway.request(method, path)
    assert (answer.status_code, answer.json()["error"]["type"]) == (status, kind)


@pytest.mark.parametrize("body", ["", "{", "[]", "[" * 200_000], ids=["none", "cut", "list", "deep"])
@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens", "/v1/chat/completions"])
async def test_a_body_that_is_not_a_json_object_is_a_bad_request(
    gateway: httpx.AsyncClient, path: str, body: str
) -> None:
    answer = await gateway.post(path, content=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"] == "the request body is not a JSON object"


@table(
    ("messages", "words"),
    [
        ([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "a"),
        ([{"role": "user", "content": [{"type": "text", "text": " hi\n"}, {"type": "image"}]}], "hi"),
        ([{"role": "user", "content": [{"text": "hi"}, {"text": "<system-reminder>x"}]}], "hi"),
        ([{"role": "user", "content": "hi"}, {"role": "system", "content": "later"}], "hi"),
        ([{"role": "user", "content": "x" * 300}], "x" * 200),
        ([], "nothing"),
        ({"role": "user"}, "nothing"),
        (["odd"], "nothing"),
    ],
)
def test_the_demo_quotes_the_users_last_words(messages: object, words: str) -> None:
    assert last_words({"messages": messages}) == words
