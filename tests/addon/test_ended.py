"""Flows that have ended are recorded together, and before any of them is read."""

import asyncio

import pytest
from mitmproxy.test import tflow

from mitm_gateway.credentials.store import Credentials
from mitm_gateway.exchange.config import Config
from mitm_gateway.exchange.exchange import Exchange
from mitm_gateway.mitm.ended import Ended
from mitm_gateway.mitm.requests import UnderWay
from mitm_gateway.wire.request import Arrival
from support.builders import make_rule, make_ruleset


class Records:
    """Notes what is recorded; a flow with the comment "broken" cannot be."""

    def __init__(self) -> None:
        self.comments: list[str] = []
        self.seen = asyncio.Event()

    def add(self, entry: UnderWay) -> None:
        if entry.flow.comment == "broken":
            raise ValueError("S3CRET")
        self.comments.append(entry.flow.comment)
        self.seen.set()


def ended(comment: str, size: int = 10) -> UnderWay:
    flow = tflow.tflow(resp=True)
    flow.comment, flow.request.raw_content = comment, bytes(size)
    return UnderWay(
        flow, flow.request, Exchange(Config(make_ruleset(make_rule())), Arrival()), Credentials({})
    )


async def test_flows_are_recorded_together_once_there_are_some() -> None:
    records = Records()
    waiting = Ended(records.add)
    names = [str(number) for number in range(9)]
    for name in names:
        waiting.add(ended(name))
    assert records.comments == []  # their answers have not been written
    await records.seen.wait()
    assert records.comments == names


async def test_a_single_flow_is_recorded_within_moments() -> None:
    records = Records()
    Ended(records.add).add(ended("one"))
    await records.seen.wait()
    assert records.comments == ["one"]


async def test_a_large_flow_does_not_wait_for_others() -> None:
    records = Records()
    waiting = Ended(records.add)
    waiting.add(ended("large", 1 << 20))
    asyncio.get_running_loop().call_later(0, waiting.add, ended("late"))
    await records.seen.wait()
    assert records.comments == ["large"]


async def test_a_reader_of_the_records_need_not_wait() -> None:
    records = Records()
    waiting = Ended(records.add)
    waiting.add(ended("one"))
    waiting.record()
    waiting.record()
    assert records.comments == ["one"]


async def test_a_flow_that_cannot_be_recorded_does_not_keep_others_from_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    records = Records()
    waiting = Ended(records.add)
    for name in ("broken", "whole"):
        waiting.add(ended(name))
    waiting.record()
    assert records.comments == ["whole"]
    assert caplog.messages == ["a flow could not be recorded: ValueError"]


@pytest.mark.parametrize("comment", ["one", "broken"])
async def test_a_recorded_flow_holds_no_body(comment: str) -> None:
    entry, waiting = ended(comment), Ended(Records().add)
    waiting.add(entry)
    waiting.record()
    assert entry.flow.request.raw_content is None
