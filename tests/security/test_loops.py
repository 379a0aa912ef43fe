"""A request that comes back to the gateway is refused, whatever name led there."""

import pytest

from support.constants import API
from support.fixture_types import StartMitmdump
from support.http_client import Wire
from support.process_figures import open_files
from support.program import unused_port

pytestmark = pytest.mark.e2e

RULES = f"""
rules: [{{name: loop, match: {{host: {API}}}, upstream: "http://loop.test", auth: {{scheme: none}}}}]
"""


@pytest.mark.parametrize("mode", ["regular", f"reverse:https://{API}"])
def test_an_upstream_that_is_the_gateway_itself_is_508_with_few_connections(
    mitmdump: StartMitmdump, mode: str
) -> None:
    port = unused_port()
    # The name leads to the gateway's port in a way that no lookup shows, as a port mapping does.
    arguments = ("-p", str(port), "--set", "gateway_hosts=loop.test")
    proxy = mitmdump(*arguments, rules=RULES, modes=[mode], names={"loop.test:80": port})
    target = f"http://{API}/v1/messages" if mode == "regular" else "/v1/messages"
    for _ in range(3):
        with Wire(port) as wire:
            answer = wire.request("GET", target, [("Host", API)])
        assert answer.status == 508
        assert b"leads back to this gateway" in answer.body
    assert proxy.output().count("client connect") <= 6
    assert open_files(proxy.process.pid) < 60


def test_a_tunnel_to_the_gateway_itself_ends(mitmdump: StartMitmdump) -> None:
    port = unused_port()
    proxy = mitmdump("-p", str(port), rules=RULES, modes=["regular"], names={"elsewhere.test:80": port})
    with Wire(port) as wire:
        answer = wire.request("GET", "http://elsewhere.test/", [("Host", "elsewhere.test")])
    assert answer.status == 508
    assert proxy.output().count("client connect") == 2
