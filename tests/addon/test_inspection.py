"""Flows that go, the log that survives, and `gateway.explain` on a flow, inside a mitmproxy of the test."""

from __future__ import annotations

import asyncio
import functools
import itertools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mitmproxy import http
from mitmproxy.addons.view import View
from mitmproxy.test import taddons, tflow

from mitm_gateway.shell.commands import Commands
from mitm_gateway.shell.keeping import Keeper
from mitm_gateway.shell.live import Live
from mitm_gateway.shell.recorder import LogFile, Recorder
from mitm_gateway.shell.replay import original_head, remember
from support.core import make_head, make_rule, make_ruleset


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


def test_nothing_goes_by_default() -> None:
    view, keeper = View(), Keeper()
    with taddons.context(view):
        flows = [tflow.tflow(resp=True, live=False) for _ in range(5)]
        view.add(flows)
        for flow in flows:
            keeper.ended(flow, 0)
        assert list(view) == flows


def test_a_log_that_was_moved_away_is_opened_anew(tmp_path: Path) -> None:
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
def test_a_full_disk_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    link = tmp_path / "log"
    link.symlink_to("/dev/full")
    log = LogFile(link)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            log.write("line")
            log._write_queued()
        log.close()
    told = [record.message for record in caplog.records if "cannot be written" in record.message]
    assert told == [f"gateway_log: {link} cannot be written; requests go on without it"]


class Clock:
    """An event loop's clock that the test turns."""

    def __init__(self) -> None:
        self.now = 100.0
        self.due: list[tuple[float, Callable[[], None]]] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, callback: Callable[..., None], *args: Any) -> Any:
        self.due.append((when, functools.partial(callback, *args)))
        return self

    def cancel(self) -> None:
        self.due.clear()

    def turn(self, seconds: float) -> None:
        self.now += seconds
        ready = [callback for when, callback in self.due if when <= self.now]
        self.due = [(when, callback) for when, callback in self.due if when > self.now]
        for callback in ready:
            callback()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(asyncio, "get_running_loop", lambda: clock)
    return clock


def watched(clock: Clock) -> tuple[list[float], Live]:
    """When flows are shown, and what shows them."""
    shown: list[float] = []

    def show(_: http.HTTPFlow) -> bool:
        shown.append(clock.now)
        return True

    return shown, Live(show)


def test_a_flow_is_shown_at_once_and_then_at_most_once_a_second(clock: Clock) -> None:
    shown, live = watched(clock)
    flow = tflow.tflow()
    with taddons.context(View()):
        for _ in range(1000):  # 10 s of 100 chunks a second
            live.changed(flow)
            clock.turn(0.01)
    assert len(shown) == 10
    assert all(later - earlier >= 1 for earlier, later in itertools.pairwise(shown))
    assert shown[0] < 100.02


def test_the_last_chunk_before_a_pause_is_shown_a_second_later(clock: Clock) -> None:
    shown, live = watched(clock)
    flow, other = tflow.tflow(), tflow.tflow()
    with taddons.context(View()):
        live.changed(flow)
        clock.turn(0.0)
        live.changed(flow)
        clock.turn(0.5)
        assert len(shown) == 1
        live.changed(other)  # each flow has its own second
        clock.turn(0.0)
        assert len(shown) == 2
        clock.turn(0.5)
        assert len(shown) == 3
        live.changed(flow)
        live.ended(flow)
        clock.turn(5)
    assert len(shown) == 3


def test_nothing_is_shown_where_nobody_looks(clock: Clock) -> None:
    with taddons.context():
        Live(lambda _: True).changed(tflow.tflow())
    assert clock.due == []


def test_a_secret_in_the_query_is_not_kept() -> None:
    flow = tflow.tflow()
    remember(flow, make_head("/v1/messages?beta=true&key=QUERY-KEY-0123456789abcdef"))
    assert "QUERY-KEY" not in str(flow.metadata)
    head = original_head(flow)
    assert head is not None
    assert head.target == "/v1/messages?beta=true&key=****"


@pytest.mark.parametrize("flows", ["@focus", "@all", "~u messages"])
def test_explain_tells_about_a_flow_as_it_came(flows: str) -> None:
    rule = make_rule(
        "gw",
        upstream="https://h.test",
        match={"path": "/v1/**"},
        auth={"scheme": "bearer", "credential": "gw"},
    )
    ruleset = make_ruleset(rule, credentials={"gw": {"env": "GW"}})
    view = View()
    commands = Commands(lambda: ruleset, list, list, Recorder())
    with taddons.context(view, commands) as context:
        flow = tflow.tflow(resp=True)
        flow.request.host = "api.anthropic.com"
        flow.request.path = "/base/v1/messages"
        remember(flow, make_head("/v1/messages?beta=true", {"x-api-key": "CLIENT-KEY-0123456789abcdef"}))
        view.add([flow])
        lines = context.master.commands.call("gateway.explain", flows, "POST", "")
    assert lines[0].endswith("https://api.anthropic.com/v1/messages")
    assert "  goes to    https://h.test/v1/messages?beta=true" in lines
    assert "  auth       x-api-key → bearer (credential gw)" in lines
    assert not any("CLIENT-KEY" in line for line in lines)
