"""Removed flows, the log file and `gateway.explain` on a flow, inside a mitmproxy of the test."""

import logging
from pathlib import Path

import pytest
from mitmproxy import flow
from mitmproxy.addons.view import View
from mitmproxy.connection import ConnectionState
from mitmproxy.test import taddons, tflow

from mitm_gateway.mitm.commands import Commands
from mitm_gateway.mitm.live_view import Keeper
from mitm_gateway.mitm.replay import remember
from mitm_gateway.mitm.requests import ending_of
from mitm_gateway.observe.log_file import LogFile
from mitm_gateway.observe.stats import Stats
from support.builders import BEARER, make_head, make_rule, make_ruleset
from support.patched import no_patches
from support.table import table


def test_the_oldest_handled_flows_go() -> None:
    view, keeper = View(), Keeper()
    with taddons.context(view):
        flows = [tflow.tflow(resp=True, live=False) for _ in range(5)]
        loaded = tflow.tflow(resp=True, live=False)
        view.add([loaded, *flows])
        for flow in flows:
            keeper.ended(flow, 2)
        assert set(view) == {loaded, *flows[3:]}
        keeper.ended(flows[3], 2)
        assert set(view) == {loaded, *flows[3:]}


def test_no_flow_is_removed_by_default() -> None:
    view, keeper = View(), Keeper()
    with taddons.context(view):
        flows = [tflow.tflow(resp=True, live=False) for _ in range(5)]
        view.add(flows)
        for flow in flows:
            keeper.ended(flow, 0)
        assert list(view) == flows


def test_a_log_that_was_moved_away_is_opened_again(tmp_path: Path) -> None:
    path, moved = tmp_path / "log", tmp_path / "log.1"
    log = LogFile(path)
    log.write("one")
    log.close()
    log = LogFile(path)
    path.rename(moved)
    log.write("two")
    log.close()
    assert (moved.read_text(), path.read_text()) == ("one\n", "two\n")
    assert path.stat().st_mode & 0o077 == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_is_reported_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    link = tmp_path / "log"
    link.symlink_to("/dev/full")
    log = LogFile(link)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            log.write("line")
            log._write_queued()
        log.close()
    told = [record.message for record in caplog.records if "cannot be written" in record.message]
    assert told == [f"gateway_log: {link} cannot be written; requests continue without it"]


def test_explain_describes_a_flow_as_it_was_received() -> None:
    rule = make_rule("gw", upstream="https://h.test", match={"path": "/v1/**"}, auth=BEARER)
    ruleset = make_ruleset(rule, credentials={"gw": {"env": "GW"}})
    view = View()
    commands = Commands(lambda: ruleset, list, list, Stats, no_patches())
    with taddons.context(view, commands) as context:
        flow = tflow.tflow(resp=True)
        flow.request.host = "api.anthropic.com"
        remember(flow, make_head("/v1/messages?beta=true", {"x-api-key": "CLIENT-KEY-0123456789abcdef"}))
        view.add([flow])
        lines = context.master.commands.call("gateway.explain", "@all", "POST", "")
    assert lines[0].endswith("https://api.anthropic.com/v1/messages")
    assert "  upstream   https://h.test/v1/messages?beta=true" in lines
    assert "  auth       x-api-key → bearer (credential gw)" in lines
    assert not any("CLIENT-KEY" in line for line in lines)


def test_explain_takes_the_model_of_a_refused_flow_from_its_body() -> None:
    first = make_rule("opus", match={"model": "opus*"}, upstream="https://h.test")
    ruleset = make_ruleset(first, make_rule("rest", upstream="https://rest.test"))
    view = View()
    with taddons.context(view, Commands(lambda: ruleset, list, list, Stats, no_patches())) as context:
        flow = tflow.tflow(resp=True)
        flow.request.content = b'{"model":"opus-4"}'
        flow.request.host = "api.anthropic.com"
        remember(flow, make_head("/v1/messages"))
        view.add([flow])
        lines = context.master.commands.call("gateway.explain", "@all", "POST", "")
    assert "  rule       opus (number 1 of 2)" in lines


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
