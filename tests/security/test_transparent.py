"""A transparent listener: the original address and the TLS name determine the destination."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache

import pytest

from support.certificates import Authority
from support.constants import API, CK, GW, JSON, TESTS
from support.http_client import pseudo_headers
from support.security_stage import BODY, ELSEWHERE, OWN, RULES, Stage
from support.table import table

pytestmark = pytest.mark.e2e

SCRIPT = TESTS / "support" / "scripts" / "diverted.py"
# Besides the usual rules one whose requests stay on their host.
STAYS = """
  - name: stays
    match: {host: gw.test}
    auth: {scheme: bearer, credential: gw}
"""


@pytest.fixture(scope="module")
def diverted_to(
    authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[int], Stage]]:
    """A gateway that receives connections meant for a port of `ELSEWHERE`."""
    with ExitStack() as opened:

        @cache
        def start(port: int) -> Stage:
            stage = Stage(
                tmp_path_factory.mktemp(f"diverted-{port}"),
                authority,
                *("-s", str(SCRIPT)),
                modes=["transparent"],
                rules=RULES + STAYS,
                env={"TEST_DIVERTED": f"{ELSEWHERE}:{port}"},
            )
            stage.ends_refusing = port != 443
            return opened.enter_context(stage)

        yield start


@pytest.fixture
def https(diverted_to: Callable[[int], Stage]) -> Iterator[Stage]:
    """Connections that were meant for port 443."""
    with diverted_to(443).case() as stage:
        yield stage


def test_the_tls_name_says_which_rule_fires_and_the_address_is_not_dialled(https: Stage) -> None:
    assert https.ask().status == 200
    assert https.asked.values("authorization") == [f"Bearer {GW}"]
    assert https.evil.raw == b""


def test_a_request_that_stays_on_its_host_goes_to_the_name_and_not_to_the_address(https: Stage) -> None:
    answer = https.ask(headers=[("Host", "gw.test"), ("x-api-key", CK)], client=https.tunnel("gw.test"))
    assert answer.status == 200
    assert https.asked.values("authorization") == [f"Bearer {GW}"]


@table(
    ("name", "host"), [("evil.test", API), (API, "evil.test"), (API, ELSEWHERE), (None, API), ("x.test", API)]
)
def test_names_that_disagree_are_421(https: Stage, name: str | None, host: str) -> None:
    client = https.tunnel(sni=name)
    https.assert_refused(https.ask(headers=[("Host", host), ("x-api-key", CK)], client=client), 421)


def test_over_http2_names_that_disagree_are_421(https: Stage) -> None:
    head = pseudo_headers(API)
    https.assert_refused(https.http2("evil.test").request([*head, ("x-api-key", CK)], BODY), 421)


def test_requests_without_a_rule_reach_their_original_destination(https: Stage) -> None:
    headers = [("Host", "evil.test"), ("x-api-key", OWN), JSON]
    assert https.ask(headers=headers, client=https.tunnel("evil.test")).status == 200
    assert https.evil.requests[-1].values("x-api-key") == [OWN]


def test_a_host_in_plain_http_is_only_a_claim(diverted_to: Callable[[int], Stage]) -> None:
    with diverted_to(80).case() as stage:
        stage.assert_refused(stage.ask(client=stage.plain()), 421)
        stage.assert_refused(stage.ask(f"http://{API}/v1/messages", client=stage.plain()), 421)
