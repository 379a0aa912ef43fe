"""The addon's hooks, one request at a time: what leaves, what is refused, and what stays behind."""

import asyncio
import gc
import gzip
import weakref
from collections.abc import Iterator
from functools import _lru_cache_wrapper
from types import TracebackType
from typing import Any
from unittest.mock import AsyncMock, Mock

import pytest
from mitmproxy import exceptions, http
from mitmproxy.proxy.layers.http._hooks import HttpRequestHeadersHook, HttpRequestHook
from mitmproxy.proxy.mode_specs import ProxyMode

from mitm_gateway.credentials.store import Credentials
from mitm_gateway.exchange.exchange import Exchange
from mitm_gateway.exchange.steps import Step
from mitm_gateway.mitm import flows
from mitm_gateway.mitm.replay import ORIGINAL
from support.constants import GW, GW_MASKED
from support.hooks import answered, record_ended, request_flow, sent, show_flows

FAULTS = [
    RuntimeError("S3CRET"), MemoryError(), RecursionError(), asyncio.CancelledError(), exceptions.AddonHalt(),
    exceptions.OptionsError("S3CRET"),
]  # fmt: skip


async def test_a_local_answer_leaves_no_key_in_its_flow(addon: Any) -> None:
    flow = request_flow(method="GET", url="https://api.anthropic.com/?key=CLIENT-KEY", content=b"")
    flow.client_conn.proxy_mode = ProxyMode.parse("reverse:https://api.anthropic.com")
    request = await sent(addon, flow)
    assert flow.response
    assert flow.response.json()["name"] == "mitmproxy-gateway"
    assert "CLIENT-KEY" not in f"{request.headers.fields} {request.path}"


async def test_a_request_is_edited_as_the_rule_says(addon: Any) -> None:
    request = await sent(addon, request_flow())
    assert request.pretty_url == "https://gw.test/base/v1/messages"
    assert request.headers["authorization"] == f"Bearer {GW_MASKED}"
    written = addon._requests.outgoing(request)
    assert written.headers["authorization"] == f"Bearer {GW}"
    assert "x-api-key" not in request.headers
    assert request.content == b'{"model":"gw-large"}'
    assert request.headers["content-length"] == "20"


async def test_the_original_request_is_stored_where_somebody_sees_flows(addon: Any, context: Any) -> None:
    await sent(addon, unseen := request_flow())
    show_flows(context)
    await sent(addon, seen := request_flow())
    assert ORIGINAL not in unseen.metadata
    assert ORIGINAL in seen.metadata


@pytest.mark.parametrize("leaves", [False, True])
async def test_others_have_their_turn_while_a_large_body_is_read(
    addon: Any, monkeypatch: pytest.MonkeyPatch, *, leaves: bool
) -> None:
    turns: list[str] = []
    on_turn = Exchange.on_turn

    def noted(*step: Any) -> Step:
        turns.append("large")
        return on_turn(*step)

    monkeypatch.setattr(Exchange, "on_turn", noted)
    content = gzip.compress(b'{"a":"' + b'\\"' * (1 << 20) + b'"}')
    large = request_flow(content=content, headers={"content-encoding": "gzip"})
    addon.requestheaders(large)
    waiting = asyncio.ensure_future(addon.request(large))
    await asyncio.sleep(0)
    await sent(addon, small := request_flow())
    turns.append("small")
    if leaves:
        addon.client_disconnected(large.client_conn)
    await waiting
    assert small.request.content == b'{"model":"gw-large"}'
    after = len(turns) - turns.index("small") - 1
    assert after == 0 if leaves else after > 4
    assert (addon._requests.outgoing(large.request) is None) is leaves


@pytest.mark.parametrize("step", ["on_request_head", "on_request_body", "on_credentials"])
@pytest.mark.parametrize("second", ["exchange.refuse", "flows._refuse"])
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: type(fault).__name__)
async def test_a_request_that_cannot_even_be_refused_is_killed(
    context: Any, step: str, second: str, fault: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusing = {"exchange.refuse": (Exchange, "refuse"), "flows._refuse": (flows, "_refuse")}[second]
    for owner, name in ((Exchange, step), refusing):
        monkeypatch.setattr(owner, name, Mock(side_effect=fault))
    flow = request_flow()
    content, flow.request.raw_content = flow.request.raw_content, None
    await context.master.addons.handle_lifecycle(HttpRequestHeadersHook(flow))
    assert not flow.request.stream
    flow.request.raw_content = content
    await context.master.addons.handle_lifecycle(HttpRequestHook(flow))
    assert flow.response is not None or not flow.killable


async def test_flows_that_are_not_live_are_left_alone(addon: Any) -> None:
    flow = request_flow()
    flow.live = False
    before = flow.request.copy()
    await sent(addon, flow)
    addon.response(flow)
    assert flow.request.headers == before.headers
    assert (flow.comment, flow.metadata) == ("", {})


async def test_a_response_of_another_addon_is_kept(addon: Any) -> None:
    flow = request_flow()
    flow.response = http.Response.make(418)
    await sent(addon, flow)
    assert flow.response.status_code == 418
    assert flow.request.headers["x-api-key"] == "CLIENT-KEY"


@pytest.mark.parametrize("url", ["https://api.anthropic.com/v1/messages", "http://passing.test/"])
async def test_a_request_that_has_ended_is_forgotten(addon: Any, context: Any, url: str) -> None:
    flow = request_flow(url=url)
    flow.client_conn.tls = url.startswith("https")
    flow.request.headers["Host"] = flow.request.host
    await sent(addon, flow)
    assert addon._requests.outgoing(flow.request) is not None
    flow.response = http.Response.make(200)
    addon.responseheaders(flow)
    addon.response(flow)
    assert not addon._requests
    record_ended(context)
    ended = weakref.ref(flow)
    del flow
    gc.collect()
    assert ended() is None


@pytest.mark.parametrize("has_length", [True, False])
async def test_a_response_of_unknown_length_streams_until_its_end(addon: Any, has_length: bool) -> None:
    flow = request_flow()
    await sent(addon, flow)
    flow.response = http.Response.make(200)
    if not has_length:
        del flow.response.headers["content-length"]
    addon.responseheaders(flow)
    assert addon._lifecycle.patches.gateway.has_streams() is not has_length
    addon.response(flow)
    assert not addon._lifecycle.patches.gateway.has_streams()


async def test_the_copy_of_a_passing_response_is_not_held_twice(addon: Any) -> None:
    flow = request_flow(url="http://passing.test/", headers={"Host": "passing.test"})
    flow.client_conn.tls = False
    await sent(addon, flow)
    flow.response = http.Response.make(200)
    addon.responseheaders(flow)
    assert callable(flow.response.stream)
    flow.response.stream(b"passed")
    addon.response(flow)
    assert flow.response.raw_content == b"passed"
    assert getattr(flow.response.stream, "__self__").kept() == b""  # noqa: B009 - it has no such type


async def test_a_request_whose_body_has_not_been_edited_is_withheld(addon: Any) -> None:
    flow = request_flow()
    addon.requestheaders(flow)
    assert flow.request.host == "gw.test"
    assert addon._requests.outgoing(flow.request) is None


@pytest.mark.parametrize("moved", ["host", "request"])
async def test_a_request_that_was_moved_is_withheld_when_its_head_is_written(addon: Any, moved: str) -> None:
    request = await sent(addon, request_flow())
    if moved == "host":
        request.host = "evil.test"
    else:
        request = request.copy()
    assert addon._requests.outgoing(request) is None


async def test_after_the_answer_nothing_holds_a_secret(addon: Any, context: Any) -> None:
    show_flows(context)
    flow = request_flow()
    await sent(addon, flow)
    answer = answered(addon, flow, b'{"model":"gw-large"}')
    assert answer.raw_content == b'{"model":"claude-opus-4"}'
    assert flow.request.headers["authorization"] == f"Bearer {GW_MASKED}"
    assert GW not in str(flow.get_state())
    assert "CLIENT-KEY" not in str(flow.get_state())
    assert flow.comment.startswith("opus-4 → gw-large, gw: x-api-key → bearer, 200")


@pytest.mark.parametrize("step", ["on_request_head", "on_request_body", "on_credentials", "obtain"])
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: type(fault).__name__)
async def test_any_fault_ends_in_a_local_answer(
    addon: Any,
    step: str,
    fault: BaseException,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    if step == "obtain":
        monkeypatch.setattr(Credentials, "all_at_hand", lambda *_: None)
        monkeypatch.setattr(Credentials, step, AsyncMock(side_effect=fault))
    else:
        monkeypatch.setattr(Exchange, step, Mock(side_effect=fault))
    flow = request_flow()
    await sent(addon, flow)
    assert flow.response is not None
    assert flow.response.status_code == 502
    assert "S3CRET" not in caplog.text
    assert b"S3CRET" not in (flow.response.content or b"")


@pytest.mark.parametrize(
    "body",
    [b"[" + b"1," * 1000, b'{"model": 1}', b"\xff", b'{"model":"a","model":"b"}'],
    ids=["broken", "no-text", "no-utf-8", "duplicate"],
)
@pytest.mark.parametrize("encoding", [{}, {"Content-Encoding": "gzip"}], ids=["plain", "not-gzip"])
async def test_a_refused_body_does_not_wait_for_the_collector(
    addon: Any, body: bytes, encoding: dict[str, str]
) -> None:
    # The refusal's traceback held the frames that held the body, and they the refusal.
    flow = request_flow(content=body, headers=encoding)
    gc.freeze()  # `gc.get_objects` leaves out what exists
    gc.disable()
    try:
        await sent(addon, flow)
        left = [each for each in gc.get_objects() if isinstance(each, Exception | TracebackType)]
    finally:
        gc.enable()
    assert flow.response is not None
    assert flow.response.status_code == 400
    assert [type(each).__name__ for each in left] == []


@pytest.mark.parametrize("is_replay", [True, False])
async def test_a_replay_continues_when_the_first_client_leaves(addon: Any, is_replay: bool) -> None:
    flow = request_flow()
    flow.is_replay = "request" if is_replay else None
    await sent(addon, flow)
    addon.client_disconnected(flow.client_conn)
    assert (flow.error is None) is is_replay
    assert (flow.id in addon._requests) is is_replay


async def test_no_cache_keeps_a_long_text_of_a_peer(addon: Any, context: Any) -> None:
    show_flows(context)
    long = "x" * 5000
    flow = request_flow(
        f"https://api.anthropic.com/v1/{long}/chat/completions",
        b'{"model":"%s"}' % long.encode(),
        {long: "a", "x-a": long, "session_id": long, "anthropic-beta": long},
    )
    await sent(addon, flow)
    assert flow.request.headers[long] == "a"
    answered(addon, flow, b'{"model":"%s","usage":{"input_tokens":1,"output_tokens":1}}' % long.encode())
    assert flow.comment
    assert max(len(key) for key in cached_texts()) < 1000


def cached_texts() -> Iterator[str | bytes]:
    """Yield every text in the keys of the results that the gateway has cached."""
    for cache in gc.get_objects():
        is_ours = str(getattr(cache, "__module__", "")).startswith("mitm_gateway.")
        if not is_ours or not isinstance(cache, _lru_cache_wrapper | dict):
            continue
        results = [cache] if isinstance(cache, dict) else gc.get_referents(cache)
        keys = [key for each in results if isinstance(each, dict) for key in each]
        for key in keys:
            yield from (text for text in (key, *gc.get_referents(key)) if isinstance(text, str | bytes))
