"""Faster hook dispatch behaves as mitmproxy's."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mitmproxy import exceptions
from mitmproxy.addons.dumper import Dumper
from mitmproxy.addons.save import Save
from mitmproxy.addons.update_alt_svc import UpdateAltSvc
from mitmproxy.addons.view import View
from mitmproxy.proxy.layers.http._hooks import HttpRequestHook, HttpResponseHook
from mitmproxy.test import taddons, tflow

from mitm_gateway.mitm.final_check import FinalCheck
from mitm_gateway.patches import table
from mitm_gateway.patches.patch import Patches
from support.patched import no_patches


class Listener:
    """Notes what it is called with; may raise, and may have addons below it."""

    def __init__(
        self, name: str, calls: list[str], fault: BaseException | None = None, *below: Listener
    ) -> None:
        self.name = name
        self.addons = list(below)
        self._calls = calls
        self._fault = fault

    def request(self, flow: Any) -> None:
        self._calls.append(f"{self.name}.request")
        if self._fault:
            raise type(self._fault)(*self._fault.args)

    async def response(self, flow: Any) -> None:
        self._calls.append(f"{self.name}.response")
        if self._fault:
            raise type(self._fault)(*self._fault.args)


class Updated:
    """Waits for updates."""

    name = "updated"

    def __init__(self, calls: list[str]) -> None:
        self._calls = calls

    def update(self, flows: Any) -> None:
        self._calls.append("update")


SCENARIOS: dict[str, Callable[[list[str]], list[object]]] = {
    "order": lambda calls: [
        Listener("a", calls, None, Listener("a1", calls, None, Listener("a2", calls)), Listener("a3", calls)),
        Listener("b", calls),
    ],
    "fault": lambda calls: [
        Listener("a", calls, None, Listener("a1", calls, ValueError("shown")), Listener("a2", calls)),
        Listener("b", calls),
    ],
    "halt": lambda calls: [Listener("a", calls, exceptions.AddonHalt()), Listener("b", calls)],
    "updates": lambda calls: [Listener("a", calls), Updated(calls)],
    "nobody": lambda calls: [],
}


@pytest.fixture
def patches() -> Iterator[Patches]:
    made = no_patches()
    yield made
    made.undo("speed", "safety")


async def happened(
    scenario: str, patches: Patches | None, caplog: pytest.LogCaptureFixture
) -> tuple[Any, ...]:
    calls: list[str] = []
    caplog.clear()
    with taddons.context(*SCENARIOS[scenario](calls)) as context:
        if patches:
            table.apply(patches, "speed")
        for hook in (HttpRequestHook, HttpResponseHook):
            await context.master.addons.handle_lifecycle(hook(tflow.tflow()))
        if patches:
            patches.undo("speed")
    logged = [
        (record.name, record.levelno, record.getMessage(), _frames(record))
        for record in caplog.records
        if record.levelno >= logging.ERROR
    ]
    return calls, logged


def _frames(record: logging.LogRecord) -> list[str]:
    trace = record.exc_info[2] if record.exc_info else None
    names = []
    while trace:
        names.append(trace.tb_frame.f_code.co_name)
        trace = trace.tb_next
    return names


@pytest.mark.parametrize("scenario", SCENARIOS)
async def test_hooks_run_as_without_the_patch(
    scenario: str, patches: Patches, caplog: pytest.LogCaptureFixture
) -> None:
    assert await happened(scenario, patches, caplog) == await happened(scenario, None, caplog)


async def test_added_addons_are_called_and_removed_ones_are_not(patches: Patches) -> None:
    calls: list[str] = []
    with taddons.context() as context:
        table.apply(patches, "speed")
        addons = context.master.addons
        await addons.handle_lifecycle(HttpRequestHook(tflow.tflow()))
        late = Listener("late", calls)
        addons.add(late)
        await addons.handle_lifecycle(HttpRequestHook(tflow.tflow()))
        late.addons.append(Listener("below", calls))
        context.options.update(http2=False)
        await addons.handle_lifecycle(HttpRequestHook(tflow.tflow()))
        late.addons.clear()
        addons.remove(late)
        await addons.handle_lifecycle(HttpRequestHook(tflow.tflow()))
    assert calls == ["late.request", "late.request", "below.request"]


async def test_a_replaced_hook_is_called(patches: Patches) -> None:
    calls: list[str] = []
    listener = Listener("a", calls)
    with taddons.context(listener) as context:
        table.apply(patches, "speed")
        await context.master.addons.handle_lifecycle(HttpRequestHook(tflow.tflow()))
        listener.request = lambda flow: calls.append("replaced")  # type: ignore[method-assign]
        await context.master.addons.handle_lifecycle(HttpRequestHook(tflow.tflow()))
    assert calls == ["a.request", "replaced"]


async def test_options_keep_their_values_and_lists_stay_copies(patches: Patches) -> None:
    with taddons.context() as context:
        table.apply(patches, "speed")
        context.options.update(mode=["regular"], http2=False)
        context.options.mode.append("socks5")
        assert (context.options.mode, context.options.http2) == (["regular"], False)
        assert context.options.listen_port is None
        context.options.reset()
        assert context.options.http2 is True


@pytest.mark.parametrize("other", [Listener("a script", []), Updated([]), View()])
async def test_flows_are_unseen_until_another_addon_may_keep_them(patches: Patches, other: object) -> None:
    with taddons.context(object.__new__(FinalCheck), UpdateAltSvc()) as context:
        assert not patches.are_flows_unseen()
        table.apply(patches, "speed")
        assert patches.are_flows_unseen()
        context.master.addons.add(other)
        assert not patches.are_flows_unseen()
        context.master.addons.remove(other)
        assert patches.are_flows_unseen()


@pytest.mark.parametrize(
    ("option", "value"), [("save_stream_file", "flows"), ("dumper_filter", "~comment x")]
)
async def test_flows_are_seen_while_an_option_asks_for_it(
    patches: Patches, tmp_path: Path, option: str, value: str
) -> None:
    with taddons.context(Save(), Dumper()) as context:
        table.apply(patches, "speed")
        assert patches.are_flows_unseen()
        context.options.update(**{option: str(tmp_path / value) if "save" in option else value})
        assert not patches.are_flows_unseen()
