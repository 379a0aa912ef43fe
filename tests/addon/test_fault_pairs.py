"""Two faults at once, each pair of steps in mitmproxy's own layers: no byte of the request gets out, and no key."""

import asyncio
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from mitm_gateway.exchange.exchange import Exchange
from support.constants import API, GW
from support.layers import ANSWER, REQUEST, SOCKET, SOCKET_HOST, WAYS, Connection, Gateway
from support.scripts.faults import STEPS, breaking

pytestmark = pytest.mark.exhaustive
BREAKABLE = {**STEPS, "withhold": (Exchange, "withhold", False)}
ON_THE_WAY_OUT = [step for step, (*_, is_out) in STEPS.items() if is_out]
# These end a request that has failed; doing nothing must not let it out either.
REFUSING = ("refuse", "note_refusal", "withhold", "check", "perform")


class Broken(Gateway):
    """A gateway whose steps fail as `broken` says, each time or once; `met` are the steps of the last request."""

    def __init__(self, folder: Path, runner: asyncio.Runner) -> None:
        self.broken: dict[str, str] = {}
        self.met: set[str] = set()
        self._is_once = False
        super().__init__(folder, runner)

    def ask(self, *, by_head: bool = False, **broken: str) -> Connection:
        """Send one request while these steps are broken; with `by_head`, each of them once."""
        self.broken, self.met, self._is_once = broken, set(), by_head
        request, way = REQUEST, WAYS["tunnel"]
        if by_head:  # a request may leave as soon as its head is decided
            request = REQUEST.replace(API.encode(), SOCKET_HOST.encode())
            way = SOCKET
        try:
            return self.exchange(request, ANSWER, way=way)
        finally:
            self.broken = {}

    def fault_of(self, step: str) -> str | None:
        """Return how a step fails now."""
        self.met.add(step)
        return self.broken.pop(step, None) if self._is_once else self.broken.get(step)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broken]:
    with pytest.MonkeyPatch.context() as patch, asyncio.Runner() as runner:
        patch.setenv("GW_KEY", GW)
        gateway = Broken(tmp_path_factory.mktemp("gateway"), runner)
        for step, (owner, name, _) in BREAKABLE.items():
            patch.setattr(owner, name, breaking(getattr(owner, name), partial(gateway.fault_of, step)))
        yield gateway
        gateway.close()


@pytest.mark.parametrize("how", ["raise", "cancelled"])
@pytest.mark.parametrize("first", ON_THE_WAY_OUT)
def test_two_faults_forward_nothing(gateway: Broken, first: str, how: str) -> None:
    # Elsewhere tests/addon/test_faults_at_calls.py covers these pairs, among all others.
    later = list(BREAKABLE)[list(BREAKABLE).index(first) + 1 :] if sys.version_info < (3, 12) else []
    for second, second_how in [(step, how) for step in later] + [(step, "empty") for step in REFUSING]:
        if second == first:
            continue
        failed = {first} if second_how == "empty" else {first, second}
        for by_head in (False, True) if second in REFUSING else (False,):
            connection = gateway.ask(by_head=by_head, **{first: how, second: second_how})
            if gateway.met & failed.intersection(ON_THE_WAY_OUT):
                assert not any(connection.sent.values()), (first, second, second_how, by_head)
            gateway.check(connection)
    gateway.serves_the_next()


def test_the_pairs_meet_the_steps_of_a_request(gateway: Broken) -> None:
    gateway.ask(credential="empty")
    elsewhere = {
        "check_peer", "load", "demo", "log", "limit", "refuse", "note_refusal", "withhold", "decode", "mask",
    }  # fmt: skip
    assert set(BREAKABLE) - gateway.met <= elsewhere
