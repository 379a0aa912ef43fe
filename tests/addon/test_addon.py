"""The addon inside mitmproxy's own machinery: options, hooks, commands."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import weakref
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest
from mitmproxy import exceptions, http
from mitmproxy.addons.mapremote import MapRemote
from mitmproxy.addons.proxyserver import Proxyserver
from mitmproxy.proxy.layers.http._hooks import HttpRequestHeadersHook, HttpRequestHook
from mitmproxy.proxy.mode_specs import ProxyMode
from mitmproxy.test import taddons, tflow

from mitm_gateway.credentials.store import Credentials
from mitm_gateway.exchange.exchange import Exchange
from mitm_gateway.mitm import flows, lifecycle
from mitm_gateway.mitm.addon import GatewayAddon
from mitm_gateway.mitm.option_conflicts import broken_promises
from support.constants import GW, GW_MASKED

RULES = """
credentials: {gw: {env: TEST_GW_KEY}}
rules:
  - name: gw
    match: {host: api.anthropic.com, path: /v1/**}
    upstream: https://gw.test/base
    auth: {scheme: bearer, credential: gw}
    models: {map: {claude-opus-4: gw-large}}
"""

FAULTS = [
    RuntimeError("S3CRET"), MemoryError(), RecursionError(), asyncio.CancelledError(), exceptions.AddonHalt(),
    exceptions.OptionsError("S3CRET"),
]  # fmt: skip


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    file = tmp_path / "rules.yaml"
    file.write_text(RULES)
    return file


@pytest.fixture
async def running(rules: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("TEST_GW_KEY", GW)
    addon = GatewayAddon()
    with taddons.context(Proxyserver(), MapRemote(), addon) as context:
        context.configure(addon, gateway_rules=str(rules))
        addon.running()
        yield addon, context
        addon.done()


def request_flow(**changes: Any) -> http.HTTPFlow:
    flow = tflow.tflow()
    flow.request = http.Request.make(
        changes.get("method", "POST"),
        changes.get("url", "https://api.anthropic.com/v1/messages"),
        changes.get("content", b'{"model":"claude-opus-4"}'),
        {
            "Host": "api.anthropic.com",
            "x-api-key": "CLIENT-KEY",
            "Content-Length": "25",
            **changes.get("headers", {}),
        },
    )
    flow.client_conn.sni = "api.anthropic.com"
    flow.client_conn.tls = True
    return flow


async def test_helpers_use_the_gateways_proxy(running: Any) -> None:
    addon, context = running
    assert "MITM_GATEWAY_PROXY" not in os.environ
    context.configure(addon, gateway_proxy="http://proxy.test:1")
    assert os.environ["MITM_GATEWAY_PROXY"] == "http://proxy.test:1"
    context.configure(addon, gateway_proxy="env")
    assert "MITM_GATEWAY_PROXY" not in os.environ


async def sent(addon: GatewayAddon, flow: http.HTTPFlow) -> http.Request:
    for hook in (addon.requestheaders, addon.request):
        if waiting := hook(flow):
            await waiting
    return flow.request


def record_ended(context: Any) -> None:
    """Record the flows that have ended, as a request for the totals does."""
    context.master.commands.call("gateway.stats")


async def test_a_local_answer_leaves_no_key_in_its_flow(running: Any) -> None:
    addon, _ = running
    flow = request_flow(method="GET", url="https://api.anthropic.com/?key=CLIENT-KEY", content=b"")
    flow.client_conn.proxy_mode = ProxyMode.parse("reverse:https://api.anthropic.com")
    request = await sent(addon, flow)
    assert flow.response
    assert flow.response.json()["name"] == "mitmproxy-gateway"
    assert "CLIENT-KEY" not in f"{request.headers.fields} {request.path}"


async def test_a_request_is_edited_as_the_rule_says(running: Any) -> None:
    addon, _ = running
    request = await sent(addon, request_flow())
    assert request.pretty_url == "https://gw.test/base/v1/messages"
    assert request.headers["authorization"] == f"Bearer {GW_MASKED}"
    written = addon._requests.outgoing(request)
    assert written.headers["authorization"] == f"Bearer {GW}"
    assert "x-api-key" not in request.headers
    assert request.content == b'{"model":"gw-large"}'
    assert request.headers["content-length"] == "20"


@pytest.mark.parametrize("step", ["on_request_head", "on_request_body", "on_credentials"])
@pytest.mark.parametrize("second", ["exchange.refuse", "flows._refuse"])
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: type(fault).__name__)
async def test_a_request_that_cannot_even_be_refused_is_killed(
    running: Any, step: str, second: str, fault: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, context = running

    def broken(*_: object, **__: object) -> None:
        raise fault

    monkeypatch.setattr(Exchange, step, broken)
    monkeypatch.setattr(Exchange if second == "exchange.refuse" else flows, second.partition(".")[2], broken)
    flow = request_flow()
    content, flow.request.raw_content = flow.request.raw_content, None
    await context.master.addons.handle_lifecycle(HttpRequestHeadersHook(flow))
    assert not flow.request.stream
    flow.request.raw_content = content
    await context.master.addons.handle_lifecycle(HttpRequestHook(flow))
    assert flow.response is not None or not flow.killable


async def test_flows_that_are_not_live_are_left_alone(running: Any) -> None:
    addon, _ = running
    flow = request_flow()
    flow.live = False
    before = flow.request.copy()
    await sent(addon, flow)
    addon.response(flow)
    assert flow.request.headers == before.headers
    assert (flow.comment, flow.metadata) == ("", {})


async def test_a_response_of_another_addon_is_kept(running: Any) -> None:
    addon, _ = running
    flow = request_flow()
    flow.response = http.Response.make(418)
    await sent(addon, flow)
    assert flow.response.status_code == 418
    assert flow.request.headers["x-api-key"] == "CLIENT-KEY"


@pytest.mark.parametrize("url", ["https://api.anthropic.com/v1/messages", "http://passing.test/"])
async def test_a_request_that_has_ended_is_forgotten(running: Any, url: str) -> None:
    addon, context = running
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
async def test_a_response_of_unknown_length_streams_until_its_end(running: Any, has_length: bool) -> None:
    addon, _ = running
    flow = request_flow()
    await sent(addon, flow)
    flow.response = http.Response.make(200)
    if not has_length:
        del flow.response.headers["content-length"]
    addon.responseheaders(flow)
    assert addon._lifecycle.patches.gateway.has_streams() is not has_length
    addon.response(flow)
    assert not addon._lifecycle.patches.gateway.has_streams()


async def test_the_copy_of_a_passing_response_is_not_held_twice(running: Any) -> None:
    addon, _ = running
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


@pytest.mark.parametrize("moved", ["host", "request"])
async def test_a_request_that_was_moved_is_withheld_when_its_head_is_written(
    running: Any, moved: str
) -> None:
    addon, _ = running
    request = await sent(addon, request_flow())
    if moved == "host":
        request.host = "evil.test"
    else:
        request = request.copy()
    assert addon._requests.outgoing(request) is None


async def test_after_the_answer_nothing_holds_a_secret(running: Any) -> None:
    addon, context = running
    flow = request_flow()
    await sent(addon, flow)
    flow.response = http.Response.make(200, b"", {"content-type": "application/json"})
    addon.responseheaders(flow)
    assert callable(flow.response.stream)
    flow.response.stream(b'{"model":"gw-large"}')
    flow.response.stream(b"")
    flow.response.raw_content = None
    addon.response(flow)
    assert flow.response.raw_content == b'{"model":"claude-opus-4"}'
    assert flow.request.headers["authorization"] == f"Bearer {GW_MASKED}"
    assert GW not in str(flow.get_state())
    assert "CLIENT-KEY" not in str(flow.get_state())
    record_ended(context)
    assert flow.comment.startswith("opus-4 → gw-large, gw: x-api-key → bearer, 200")


@pytest.mark.parametrize("step", ["on_request_head", "on_request_body", "on_credentials", "obtain"])
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: type(fault).__name__)
async def test_any_fault_ends_in_a_local_answer(
    running: Any,
    step: str,
    fault: BaseException,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    addon, _ = running

    def broken(*_: object) -> None:
        raise fault

    async def broken_later(*_: object) -> None:
        raise fault

    if step == "obtain":
        monkeypatch.setattr(Credentials, "all_at_hand", lambda *_: None)
        monkeypatch.setattr(Credentials, step, broken_later)
    else:
        monkeypatch.setattr(Exchange, step, broken)
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
    running: Any, body: bytes, encoding: dict[str, str]
) -> None:
    # The refusal's traceback held the frames that held the body, and they the refusal.
    addon, _ = running
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


async def test_every_request_before_the_start_is_503(rules: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle, "START_PATIENCE_S", 0.01)
    addon = GatewayAddon()
    with taddons.context(addon) as context:
        context.configure(addon, gateway_rules=str(rules))
        flow = request_flow()
        await sent(addon, flow)
        assert flow.response is not None
        assert flow.response.status_code == 503


async def test_wrong_rules_at_start_are_logged_as_errors(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text("rules: []\n")
    addon = GatewayAddon()
    with taddons.context(addon) as context:
        context.configure(addon, gateway_rules=str(file))
        addon.running()
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR] == [
        f'{file}:1:8: "rules" is empty; expected at least one rule'
    ]


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("ssl_insecure", True),
        ("validate_inbound_headers", False),
        ("stream_large_bodies", "1m"),
        ("ignore_hosts", ["anthropic"]),
        ("map_remote", ["|api.anthropic.com|evil.test"]),
        ("gateway_body_limit", "lots"),
        ("gateway_capture", "-1"),
        ("gateway_origins", "*"),
        ("gateway_clients", "/nonexistent"),
        ("gateway_rules", "/nonexistent"),
    ],
)
async def test_an_option_that_undoes_a_promise_is_rolled_back(running: Any, option: str, value: Any) -> None:
    addon, context = running
    before = getattr(context.options, option)
    with pytest.raises(exceptions.OptionsError):
        context.options.update(**{option: value})
    assert getattr(context.options, option) == before
    assert (await sent(addon, request_flow())).host == "gw.test"


async def test_options_that_the_user_did_not_set_get_defaults(running: Any) -> None:
    _, context = running
    assert context.options.listen_host == "127.0.0.1"
    assert context.options.keep_host_header is True
    assert context.options.connection_strategy == "lazy"
    assert "tcp_timeout" not in context.options or context.options.tcp_timeout == 3600


async def test_no_redirected_host_is_dialled_while_the_program_starts(
    rules: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_GW_KEY", GW)
    addon = GatewayAddon()
    with taddons.context(Proxyserver(), MapRemote(), addon) as context:
        context.configure(addon, gateway_rules=str(rules))
        assert context.options.connection_strategy == "lazy"  # `running` was not called


async def test_a_reload_applies_the_reading_that_it_checked(
    running: Any, rules: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    addon, context = running

    def write(upstream: str) -> None:
        rules.write_text(RULES.replace("https://gw.test/base", upstream))

    def edit_in_between(*args: Any) -> Any:
        write("http://unchecked.test")
        return broken_promises(*args)

    monkeypatch.setattr(lifecycle, "broken_promises", edit_in_between)
    write("https://checked.test")
    assert context.master.commands.call("gateway.reload") == ["1 rule loaded"]
    assert (await sent(addon, request_flow())).host == "checked.test"


async def test_mitmproxys_commands_print_results(running: Any) -> None:
    addon, context = running
    call = context.master.commands.call
    assert call("gateway.rules") == ["1. gw: api.anthropic.com /v1/** → https://gw.test/base"]
    assert call("gateway.check") == ["no mistakes found"]
    assert call("gateway.reload") == ["1 rule loaded"]
    explained = call("gateway.explain", "https://api.anthropic.com/v1/messages")
    assert "  rule       gw (number 1 of 1)" in explained
    flow = request_flow()
    await sent(addon, flow)
    addon.response(flow)
    assert call("gateway.stats")[1].split()[0] == "gw"
    assert call("gateway.stats", "outcome")[0].split()[0] == "outcome"
    with pytest.raises(
        exceptions.CommandError,
        match="unknown day; expected one of rule-model, ",
    ):
        call("gateway.stats", "day")


async def test_prices_of_a_file_count_and_a_faulty_file_is_refused(running: Any, tmp_path: Path) -> None:
    addon, context = running
    file = tmp_path / "prices.yaml"
    file.write_text("models: {gw-large: {input: 1, output: 2}}")
    context.configure(addon, gateway_prices=str(file))
    flow = request_flow()
    await sent(addon, flow)
    flow.response = http.Response.make(200, b"", {"content-type": "application/json"})
    addon.responseheaders(flow)
    assert callable(flow.response.stream)
    flow.response.stream(b'{"model":"gw-large","usage":{"input_tokens":11000,"output_tokens":7000}}')
    flow.response.stream(b"")
    addon.response(flow)
    record_ended(context)
    assert flow.comment.startswith("opus-4 11k→7k → gw-large, gw: ")
    assert flow.comment.endswith(", $0.0250")
    assert flow.metadata["gateway"]["cost_usd"] == 0.025
    assert context.master.commands.call("gateway.stats")[-1].split()[7] == "$0.0250"
    file.write_text("models: {gw-large: {input: 1}}")
    with pytest.raises(
        exceptions.OptionsError, match=r'gateway_prices: .*prices.yaml:1:10: "gw-large" has no "output"'
    ):
        context.configure(addon, gateway_prices=f"{tmp_path}/../{tmp_path.name}/prices.yaml")


@pytest.mark.parametrize("is_replay", [True, False])
async def test_a_replay_continues_when_the_first_client_leaves(running: Any, is_replay: bool) -> None:
    addon, _ = running
    flow = request_flow()
    flow.is_replay = "request" if is_replay else None
    await sent(addon, flow)
    addon.client_disconnected(flow.client_conn)
    assert (flow.error is None) is is_replay
    assert (flow.id in addon._requests) is is_replay
