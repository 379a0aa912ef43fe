"""Differences between the requests of a session in the LLM view and by `gateway.diff`, inside mitmproxy."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from mitmproxy import contentviews, exceptions, http
from mitmproxy.addons.view import View
from mitmproxy.test import taddons, tflow

from mitm_gateway.llm.conversation import DEFAULT_LIMIT
from mitm_gateway.mitm import conversation_turns, views
from mitm_gateway.mitm.addon import GatewayAddon
from mitm_gateway.mitm.recorder import FACTS
from mitm_gateway.text import bounded_json


@pytest.fixture
def shown() -> Iterator[Any]:
    addon, view = GatewayAddon(), View()
    with taddons.context(view, addon) as context:
        yield context, view
        addon.done()


def request(view: View, body: dict[str, Any], session: str | None = "s1", **facts: Any) -> http.HTTPFlow:
    flow = tflow.tflow()
    flow.request = http.Request.make("POST", "https://api.anthropic.com/v1/messages", json.dumps(body))
    flow.request.headers["content-type"] = "application/json"
    flow.metadata[FACTS] = {**({"session": session} if session else {}), **facts}
    view.add([flow])
    return flow


def body(*texts: str, **others: Any) -> dict[str, Any]:
    turns = [{"role": ("user", "assistant")[at % 2], "content": text} for at, text in enumerate(texts)]
    return {"model": "m", "system": "Be brief.", "tools": [{"name": "a"}], "messages": turns, **others}


def llm(flow: http.HTTPFlow) -> str:
    message = views.ShownMessage(flow.request.content or b"", "application/json", flow, flow.request)
    return views.llm_view(lambda: DEFAULT_LIMIT).render(message)


def test_the_view_tells_what_is_new_since_the_request_before(shown: Any) -> None:
    _, view = shown
    first = request(view, body("one"))
    request(view, body("title, please"))
    request(view, body("one", "x", "y"), session="other")
    later = request(view, body("one", "two", "three"), fresh_tokens=4, cache_read_tokens=96)
    assert "since the request before" not in llm(first)
    assert llm(later).startswith(
        "since the request before:\n  same up to message 1, two messages new\n"
        "  cache: 96 tokens read (96 % of the prompt), 0 written, 4 fresh\n"
    )


def test_without_a_name_a_session_is_found_by_its_beginning(shown: Any) -> None:
    _, view = shown
    request(view, body("one"), session=None)
    request(view, body("one", "TWO", "x"), session=None)
    later = request(view, body("one", "two", "three", system="Be long."), session=None)
    assert "system changed at character 4" in llm(later)
    assert "- Be brief." in llm(later)


def test_a_stored_response_of_the_responses_api_leads_to_its_request(shown: Any) -> None:
    _, view = shown
    first = request(view, {"model": "m", "input": "one"}, session=None)
    first.response = http.Response.make(200, b'{"id":"resp_1","object":"response"}')
    request(view, {"model": "m", "input": "other"}, session=None)
    later = request(view, {"model": "m", "input": "two", "previous_response_id": "resp_1"}, session=None)
    assert "continues stored response resp_1, one message new" in llm(later)


def test_diff_compares_two_flows_or_one_with_the_one_before(shown: Any) -> None:
    context, view = shown
    first = request(view, body("one"))
    second = request(view, body("one", "two", "three", tools=[{"name": "b"}]))
    for flow, at in ((first, 1.0), (second, 2.0)):
        flow.request.timestamp_start = at
    call = context.master.commands.call
    expected = [
        "tools changed: `a` gone, `b` new",
        "same up to message 1, two messages new",
        "the cache can serve nothing: the tools changed, and the prompt begins with them",
        "gateway: no edit of the body in either request",
    ]
    assert call("gateway.diff", f"@{second.id},{first.id}") == expected
    assert call("gateway.diff", f"@{first.id}", f"@{second.id}") == expected
    assert call("gateway.diff", f"@{second.id}") == expected
    assert call("gateway.diff", f"@{first.id}") == ["no earlier request of this session begins like this one"]


@pytest.mark.parametrize("command", ["gateway.diff", "gateway.explain"])
def test_a_filter_that_matches_nothing_is_answered_with_a_sentence(shown: Any, command: str) -> None:
    context, _ = shown
    with pytest.raises(exceptions.CommandError, match="no flow matches ~u nothing"):
        context.master.commands.call(command, "~u nothing")


def test_diff_refuses_what_it_cannot_compare(shown: Any) -> None:
    context, view = shown
    for text in "abc":
        request(view, body(text))
    call = context.master.commands.call
    with pytest.raises(exceptions.CommandError, match="3 flows match; expected one or two"):
        call("gateway.diff", "@all")
    view.clear()
    other, good = tflow.tflow(), request(view, body("a"))
    view.add([other])
    with pytest.raises(exceptions.CommandError, match="GET /path is not a conversation"):
        call("gateway.diff", f"@{other.id}", f"@{good.id}")


def test_a_long_session_stays_cheap_to_show(shown: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    _, view = shown
    texts = [f"message {number} " * 20 for number in range(400)]
    for number in range(1, 400, 2):
        later = request(view, body(*texts[:number]))
    parsed: list[int] = []

    def counted(data: bytes) -> Any:
        parsed.append(len(data))
        return parse(data)

    parse = bounded_json.parsed
    monkeypatch.setattr(conversation_turns, "parsed", counted)
    assert "same up to message 397, two messages new" in llm(later)
    assert len(parsed) == 3
    assert len(conversation_turns._digests) <= conversation_turns._MAX_DIGESTS


def test_a_failed_response_begins_with_error_and_hint(shown: Any) -> None:
    _, view = shown
    flow = request(view, body("one"), hint="check the key", cost_usd=0.5)
    flow.response = http.Response.make(
        401, b'{"error": {"type": "e", "message": "m"}, "usage": {"output_tokens": 1}}'
    )
    data = flow.response.raw_content or b""
    message = views.ShownMessage(data, "application/json", flow, flow.response)
    render = views.llm_view(lambda: DEFAULT_LIMIT).render
    assert render(message) == "error:\n  e: m\n\nhint: check the key\n\nusage: out 1\n\ncost: $0.5000"
    flow.metadata[FACTS] = {"error": "server closed connection"}
    message = views.ShownMessage(
        b'{"content": [], "role": "assistant"}', "application/json", flow, flow.response
    )
    assert render(message).startswith("error: server closed connection\n\nassistant:")


def test_mitmproxy_renders_the_view_of_a_request(shown: Any) -> None:
    _, view = shown
    remove = views.register(lambda: DEFAULT_LIMIT)
    try:
        request(view, body("one"))
        later = request(view, body("one", "two", "three"))
        if hasattr(contentviews, "prettify_message"):
            text = contentviews.prettify_message(later.request, later, "LLM").text
        else:
            legacy: Any = contentviews
            _, lines, _ = legacy.get_message_content_view("LLM", later.request, later)
            text = "\n".join("".join(part for _, part in line) for line in lines)
        assert text.startswith("since the request before:\n  same up to message 1, two messages new")
    finally:
        remove()
