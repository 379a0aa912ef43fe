"""Two faults at once, each pair of steps in mitmproxy's own layers: no byte of the request gets out, and no key."""

import asyncio
import sys
from collections.abc import Iterator

import pytest

from support.constants import GW
from support.faults import STEPS, Breaking
from support.layers import ANSWER, BODY, KEY, LINE, REST, WAYS, Connection, Gateway

pytestmark = pytest.mark.exhaustive
REQUEST = b"\r\n".join((LINE, KEY, REST, BODY))
ON_THE_WAY_OUT = [step for step, (*_, is_out) in STEPS.items() if is_out]
# These end a request that has failed; doing nothing must not let it out either.
REFUSING = ("refuse", "note_refusal", "check", "perform")


class Broken(Gateway):
    """A gateway whose steps fail as `broken` says; `met` are the steps of the last request."""

    broken: dict[str, str]
    met: set[str]

    def ask(self, **broken: str) -> Connection:
        """Send one request while these steps are broken."""
        self.broken.clear()
        self.met.clear()
        self.broken.update(broken)
        try:
            return self.exchange(REQUEST, ANSWER, 4096, **WAYS["tunnel"])
        finally:
            self.broken.clear()


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broken]:
    broken: dict[str, str] = {}
    met: set[str] = set()
    breaking = Breaking(lambda: broken, met.add)
    with pytest.MonkeyPatch.context() as patch, asyncio.Runner() as runner:
        patch.setenv("TEST_GW_KEY", GW)
        for step, (owner, name, _) in STEPS.items():
            patch.setattr(owner, name, breaking.wrap(step, getattr(owner, name)))
        gateway = Broken(tmp_path_factory.mktemp("gateway"), runner)
        gateway.broken, gateway.met = broken, met
        yield gateway
        gateway.close()


@pytest.mark.parametrize("how", ["raise", "cancelled"])
@pytest.mark.parametrize("first", ON_THE_WAY_OUT)
def test_two_faults_forward_nothing(gateway: Broken, first: str, how: str) -> None:
    # Elsewhere tests/addon/test_faults_at_calls.py covers these pairs, among all others.
    later = list(STEPS)[list(STEPS).index(first) + 1 :] if sys.version_info < (3, 12) else []
    for second, second_how in [(step, how) for step in later] + [(step, "empty") for step in REFUSING]:
        if second == first:
            continue
        connection = gateway.ask(**{first: how, second: second_how})
        failed = {first} if second_how == "empty" else {first, second}
        if gateway.met & failed.intersection(ON_THE_WAY_OUT):
            assert not any(connection.sent.values()), (first, second, second_how)
        gateway.check(connection)
    gateway.serves_the_next()


def test_the_pairs_meet_the_steps_of_a_request(gateway: Broken) -> None:
    gateway.ask(credential="empty")
    elsewhere = {"check_peer", "load", "demo", "log", "limit", "refuse", "note_refusal", "decode", "mask"}
    assert set(STEPS) - gateway.met <= elsewhere
