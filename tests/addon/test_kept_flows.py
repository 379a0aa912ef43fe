"""Flows that have ended: which are kept, how they ended, and `gateway.explain` about one."""

from collections.abc import Iterator

import pytest
from mitmproxy import flow
from mitmproxy.addons.view import View
from mitmproxy.connection import ConnectionState
from mitmproxy.test import taddons, tflow

from mitm_gateway.mitm.commands import Commands
from mitm_gateway.mitm.live_view import Keeper
from mitm_gateway.mitm.replay import remember
from mitm_gateway.mitm.requests import ending_of
from mitm_gateway.observe.stats import Stats
from mitm_gateway.rules.ruleset import RuleSet
from mitm_gateway.wire.request import RequestHead
from support.builders import BEARER, make_head, make_rule, make_ruleset
from support.patched import no_patches
from support.table import table


@pytest.fixture
def view() -> Iterator[View]:
    with taddons.context(view := View()):
        yield view


FLOWS = [tflow.tflow(resp=True, live=False) for _ in range(5)]


def test_the_oldest_handled_flows_go(view: View) -> None:
    keeper, loaded = Keeper(), tflow.tflow(resp=True, live=False)
    view.add([loaded, *FLOWS])
    for each in FLOWS:
        keeper.ended(each, 2)
    assert set(view) == {loaded, *FLOWS[3:]}
    keeper.ended(FLOWS[3], 2)
    assert set(view) == {loaded, *FLOWS[3:]}


def test_no_flow_is_removed_by_default(view: View) -> None:
    keeper = Keeper()
    view.add(FLOWS)
    for each in FLOWS:
        keeper.ended(each, 0)
    assert list(view) == FLOWS


def explained(ruleset: RuleSet, head: RequestHead, content: bytes = b"") -> list[str]:
    """Return the answer of `gateway.explain` about a flow that was received with this head."""
    view, flow = View(), tflow.tflow(resp=True)
    flow.request.host, flow.request.content = "api.anthropic.com", content
    remember(flow, head)
    with taddons.context(view, Commands(lambda: ruleset, list, list, Stats, no_patches())) as context:
        view.add([flow])
        lines: list[str] = context.master.commands.call("gateway.explain", "@all", "POST", "")
    return lines


def test_explain_describes_a_flow_as_it_was_received() -> None:
    rule = make_rule("gw", upstream="https://h.test", match={"path": "/v1/**"}, auth=BEARER)
    head = make_head("/v1/messages?beta=true", {"x-api-key": "CLIENT-KEY-0123456789abcdef"})
    lines = explained(make_ruleset(rule, credentials={"gw": {"env": "GW"}}), head)
    assert lines[0].endswith("https://api.anthropic.com/v1/messages")
    assert "  upstream   https://h.test/v1/messages?beta=true" in lines
    assert "  auth       x-api-key → bearer (credential gw)" in lines
    assert not any("CLIENT-KEY" in line for line in lines)


def test_explain_takes_the_model_of_a_refused_flow_from_its_body() -> None:
    first = make_rule("opus", match={"model": "opus*"}, upstream="https://h.test")
    ruleset = make_ruleset(first, make_rule("rest", upstream="https://rest.test"))
    assert "  rule       opus (number 1 of 2)" in explained(ruleset, make_head(), b'{"model":"opus-4"}')


@table(
    ("message", "version", "is_client_there", "silence_s", "expected"),
    [
        ("Client disconnected.", "HTTP/1.1", False, 1, "client_left"),
        ("peer closed connection", "HTTP/2.0", False, 1, "client_left"),
        ("Client disconnected.", "HTTP/1.1", False, 600, "timed_out"),
        ("stream reset by client (CANCEL)", "HTTP/2.0", True, 1, "client_left"),
        (flow.Error.KILLED_MESSAGE, "HTTP/1.1", True, 1, "client_left"),
        # mitmproxy says "client" of an upstream over HTTP/2 as well.
        ("stream reset by client (INTERNAL_ERROR)", "HTTP/2.0", True, 1, "broke_off"),
        ("stream reset by client (CANCEL)", "HTTP/1.1", True, 1, "broke_off"),
        ("server closed connection", "HTTP/1.1", True, 1, "broke_off"),
    ],
)
def test_a_flow_is_ended_by_the_client_the_upstream_or_a_timeout(
    message: str, version: str, is_client_there: bool, silence_s: float, expected: str
) -> None:
    ended = tflow.tflow(err=flow.Error(message))
    ended.request.http_version = version
    ended.client_conn.state = ConnectionState.OPEN if is_client_there else ConnectionState.CAN_WRITE
    assert ending_of(ended, silence_s, 600) == expected
    assert ending_of(tflow.tflow(resp=True), silence_s, 600) == "complete"
