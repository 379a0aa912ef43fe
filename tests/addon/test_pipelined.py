"""Pipelined HTTP/1 requests: a few of a client at a time, in order, and the end of the connection behind them."""

import pytest
from mitmproxy import http
from mitmproxy.test import taddons

from mitm_gateway.patches.safety import turns
from support.layers import TUNNEL, Connection, connected

COUNT = 50
REQUESTS = [b"GET /%d HTTP/1.1\r\nHost: upstream.test\r\n\r\n" % number for number in range(COUNT)]
ANSWERS = b"".join(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n/%02d" % number for number in range(COUNT))


class Local:
    """An addon that answers each request with its path."""

    def requestheaders(self, flow: http.HTTPFlow) -> None:
        flow.response = http.Response.make(200, f"/{int(flow.request.path[1:]):02}")


@pytest.fixture
async def client(patched: taddons.context) -> Connection:
    patched.master.addons.add(Local())
    return await connected(patched, **TUNNEL)


async def test_the_others_have_their_turn_after_a_few_requests(client: Connection) -> None:
    await client.receive(b"".join(REQUESTS))
    assert client.got == ANSWERS
    assert client.turns == COUNT // 8
    assert not turns.has_waiting_data(client.client)


async def test_a_client_that_leaves_while_its_requests_wait_is_ended(client: Connection) -> None:
    client.at_turn = {1: client.close}
    await client.receive(b"".join(REQUESTS))
    assert len({flow.request.path for flow in client.flows}) == 9
    assert not any(flow.live for flow in client.flows)
    assert not client.client.connected
    assert not turns.has_waiting_data(client.client)


async def test_what_arrives_while_requests_wait_is_read_behind_them(client: Connection) -> None:
    *first, last = REQUESTS
    client.at_turn = {1: lambda: client.receive(last[:20]), 2: lambda: client.receive(last[20:])}
    await client.receive(b"".join(first))
    assert client.got == ANSWERS
