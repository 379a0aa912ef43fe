"""WebSockets: other upgrades are removed, sockets whose messages a rule would read are refused, tokens are counted."""

import json
from typing import Any

from mitm_gateway.exchange.websocket import MessageUsage, is_websocket, refuse_socket, without_other_upgrade
from support.builders import make_head, make_rule, make_ruleset
from support.table import table

ASKED = {"Connection": "keep-alive, Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
SOCKET = make_head("/v1/responses", ASKED, method="GET")
PLAIN = make_rule("plain")
BY_MODEL = make_rule("by-model", match={"model": "gpt-5*"})


def test_a_websocket_is_left_alone() -> None:
    assert is_websocket(SOCKET)
    assert without_other_upgrade(SOCKET) is SOCKET


@table(
    "changes",
    [
        {"Upgrade": "foo"},
        {"Upgrade": "websocket, foo"},
        {"Upgrade": "h2c", "HTTP2-Settings": "AAMAAABkAARAAAAAAAIAAAAA"},
        {"Sec-WebSocket-Version": "8"},
    ],
)
def test_any_other_upgrade_is_removed(changes: dict[str, str]) -> None:
    head = without_other_upgrade(make_head(headers={**ASKED, **changes}, method="GET"))
    assert head.get("upgrade") is None
    assert head.get("http2-settings") is None
    assert head.get("connection") == "keep-alive"


def test_a_websocket_is_asked_for_with_get() -> None:
    assert not is_websocket(make_head(headers=ASKED, method="POST"))


@table(
    ("keys", "is_refused"),
    [
        ({"models": {"map": {"a": "b"}}}, True),
        ({"models": {}}, True),
        ({"body": {"remove": ["store"]}}, True),
        ({"body": {"set": {"store": False}}}, True),
        ({"beta": {"keep": ["a"]}}, True),
        ({"match": {"model": "gpt-5*"}}, True),
        ({"headers": {"set": {"a": "b"}}}, False),
        ({"respond": {"count_tokens": "estimate"}}, False),
    ],
)
def test_a_rule_that_would_read_messages_refuses_the_socket(keys: dict[str, Any], is_refused: bool) -> None:
    refusal = refuse_socket(make_ruleset(make_rule("r", **keys)), SOCKET)
    assert (refusal is not None) == is_refused
    if refusal:
        assert (refusal.status, refusal.rule, refusal.retry) == (426, "r", False)


def test_the_first_rule_that_takes_the_socket_decides() -> None:
    assert refuse_socket(make_ruleset(PLAIN, BY_MODEL), SOCKET) is None
    assert refuse_socket(make_ruleset(BY_MODEL, PLAIN), SOCKET) is not None
    assert refuse_socket(make_ruleset(BY_MODEL), make_head(method="GET")) is None


@table("method", ["GET", "POST"])
@table("headers", [{"Upgrade": "WebSocket"}, {**ASKED, "Sec-WebSocket-Version": "8"}])
def test_a_socket_of_any_version_is_refused(method: str, headers: dict[str, str]) -> None:
    assert refuse_socket(make_ruleset(BY_MODEL), make_head("/v1/responses", headers, method=method))


def test_the_tokens_of_all_responses_on_a_socket_are_summed() -> None:
    usage = MessageUsage()
    for count in (3, 4):
        counts = {"input_tokens": count, "output_tokens": 1}
        usage.feed(
            json.dumps({"type": "response.done", "response": {"model": "gpt-5", "usage": counts}}).encode()
        )
    for nonsense in (b'"usage"', b'{"usage": 5}', b"", b'{"usage": {"input_tokens": -1}}'):
        usage.feed(nonsense)
    found = usage.finish()
    assert found is not None
    assert (found.model, found.input_tokens, found.output_tokens) == ("gpt-5", 7, 2)
    assert MessageUsage().finish() is None


@table(
    "message",
    [
        {"usageMetadata": {"promptTokenCount": 5, "responseTokenCount": 3, "cachedContentTokenCount": 2}},
        {
            "response": {
                "usage": {"input_tokens": 5, "output_tokens": 3, "input_token_details": {"cached_tokens": 2}}
            }
        },
    ],
)
def test_each_api_with_sockets_is_counted(message: dict[str, Any]) -> None:
    usage = MessageUsage()
    usage.feed(json.dumps(message).encode())
    usage.feed(json.dumps(message).encode())
    found = usage.finish()
    assert found is not None
    assert (found.input_tokens, found.output_tokens, found.cache_read_tokens) == (10, 6, 4)
