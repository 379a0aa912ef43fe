"""mitmweb's messages to browsers under `gateway_fast`."""

import asyncio
from collections.abc import Iterator
from unittest.mock import Mock

import pytest
from mitmproxy import ctx, options
from mitmproxy.flow import Flow
from mitmproxy.test import tflow
from mitmproxy.tools.web import app
from mitmproxy.tools.web.master import WebMaster

from support.patched import applied


@pytest.fixture
async def master(monkeypatch: pytest.MonkeyPatch) -> WebMaster:
    made = WebMaster(options.Options(), with_termlog=False)
    monkeypatch.setattr(ctx, "master", made)
    return made


@pytest.fixture
def described(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Comments of the flows that are described."""
    comments: list[str] = []
    describe = app.flow_to_json

    def noted(flow: Flow) -> object:
        comments.append(flow.comment)
        return describe(flow)

    monkeypatch.setattr(app, "flow_to_json", noted)
    return comments


@pytest.fixture
def browser() -> Iterator[Mock]:
    connected = Mock()
    app.ClientConnection.connections.add(connected)
    yield connected
    app.ClientConnection.connections.discard(connected)


async def test_nothing_is_described_without_a_browser(master: WebMaster, described: list[str]) -> None:
    flow = tflow.tflow()
    with applied("fewer-messages"):
        master.view.add([flow])
        master.view.update([flow])
        await asyncio.sleep(0)
    assert described == []


async def test_a_browser_receives_the_last_of_changes_at_once(
    master: WebMaster, described: list[str], browser: Mock
) -> None:
    flow, removed = tflow.tflow(), tflow.tflow()
    with applied("fewer-messages"):
        master.view.add([flow, removed])
        for flow.comment in ("first", "second"):
            master.view.update([flow, removed])
        master.view.remove([removed])
        await asyncio.sleep(0)
        flow.comment = "later"
        master.view.update([flow])
        await asyncio.sleep(0)
    assert described == ["", "", "second", "later"]
    assert browser.method_calls


async def test_the_last_change_is_described_when_the_patch_ends(
    master: WebMaster, described: list[str], browser: Mock
) -> None:
    flow = tflow.tflow()
    with applied("fewer-messages"):
        master.view.add([flow])
        flow.comment = "last"
        master.view.update([flow])
    master.view.update([flow])
    assert described == ["", "last", "last"]
