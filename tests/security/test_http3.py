"""HTTP/3 over real QUIC: the promises hold there too, on the listener that reverse modes open beside TCP."""

from collections.abc import Callable, Iterator, Sequence

import pytest

from support.answers import Header
from support.certificates import Authority
from support.constants import API, CK, CK_MARK, GW, GW_MARK
from support.fixture_types import StartMitmdump
from support.http3 import Http3Upstream, ask
from support.mitmdump import Mitmdump
from support.one_rule import MAPPING, one_rule

pytestmark = pytest.mark.e2e

BODY = b'{"model":"claude-x","messages":[]}'
PSEUDO = {":method": "POST", ":scheme": "https", ":authority": "localhost", ":path": "/v1/messages"}
KEYS = (("x-api-key", CK), ("authorization", f"Bearer {CK}"), ("cookie", f"a={CK}"))
StartGateway = Callable[[Http3Upstream], Mitmdump]


def head(*fields: Header, **pseudo: str) -> list[Header]:
    """A request's head with keys; `pseudo` replaces pseudo-headers."""
    return [*(PSEUDO | {f":{name}": value for name, value in pseudo.items()}).items(), *KEYS, *fields]


@pytest.fixture
def upstream(authority: Authority) -> Iterator[Http3Upstream]:
    with Http3Upstream(authority.certificate("127.0.0.1")) as started:
        yield started


@pytest.fixture
def gateway(mitmdump: StartMitmdump, authority: Authority) -> StartGateway:
    def start(upstream: Http3Upstream) -> Mitmdump:
        rules = one_rule(f"https://127.0.0.1:{upstream.port}", MAPPING)
        return mitmdump(
            *("-w", "flows", "--set", "hardump=flows.har", "--set", "flow_detail=4"),
            rules=rules,
            modes=[f"reverse:http3://{API}"],
            trust=authority.ca_file,
            env={"GW_KEY": GW},
        )

    return start


def assert_nothing_kept(proxy: Mitmdump) -> None:
    """End the gateway; neither key is in anything that it has printed or written."""
    proxy.stop()
    for name in ("flows", "flows.har", "output.txt"):
        kept = (proxy.home / name).read_bytes()
        assert not any(mark.encode() in kept for mark in (CK_MARK, GW_MARK)), name


def test_a_request_gets_the_gateways_key_and_no_other(gateway: StartGateway, upstream: Http3Upstream) -> None:
    proxy = gateway(upstream)
    assert ask(proxy.port, head(path=f"/v1/messages?a=1&key={CK}"), BODY) == (200, b'{"model":"claude-x"}')
    fields = dict(upstream.heads[0])
    assert fields[b"authorization"] == f"Bearer {GW}".encode()
    assert (fields[b":path"], fields[b":authority"]) == (b"/v1/messages?a=1", b"127.0.0.1:%d" % upstream.port)
    assert CK_MARK not in str(upstream.heads)
    assert_nothing_kept(proxy)


REFUSED: dict[str, tuple[Sequence[Header] | bytes, ...]] = {
    "another authority": (head(authority="evil.test"), BODY),
    "another host": (head(("host", "evil.test")), BODY),
    "user information": (head(authority="localhost@evil.test"), BODY),
    "two authorities": ([(":authority", "localhost"), *head()], BODY),
    "another scheme": (head(scheme="ftp"), BODY),
    "an absolute path": (head(path="https://evil.test/"), BODY),
    "a blank in the path": (head(path="/v1/x HTTP/1.1"), BODY),
    "a line break in the path": (head(path="/v1/x\r\nx-evil: 1"), BODY),
    "a line break in the method": (head(method="GET / HTTP/1.1\r\nx-evil: 1"), BODY),
    "a line break in a name": (head(("x\r\nx-evil", "1")), BODY),
    "a line break in a value": (head(("x", "1\r\nx-evil: 1")), BODY),
    "CONNECT": (head(method="CONNECT"),),
    "TRACE": (head(method="TRACE"),),
    "chunks": (head(("transfer-encoding", "chunked")), BODY),
    "a signed length": (head(("content-length", f"+{len(BODY)}")), BODY),
    "a short length": (head(("content-length", "3")), BODY),
    "a long length": (head(("content-length", "3000")), BODY),
    "a length without a body": (head(("content-length", "5")),),
    "two lengths": (head(*[("content-length", str(len(BODY)))] * 2), BODY),
    "trailers": (head(), BODY, [("x-api-key", CK)]),
    "two heads": (head(), head(), BODY),
    "data before the head": (BODY, head()),
    "two models": (head(), b'{"model":"claude-x","model":"other"}'),
    "a web page": (head(("origin", "https://evil.test")), BODY),
    "too many fields": (head(*[("x", "1")] * 1001), BODY),
    "a large head": (head(*[("x", "a" * 2000)] * 100), BODY),
}


def test_contradictions_are_refused_and_the_next_request_is_served(
    gateway: StartGateway, upstream: Http3Upstream
) -> None:
    proxy = gateway(upstream)
    answers = {name: ask(proxy.port, *parts)[0] for name, parts in REFUSED.items()}
    assert all(status == 0 or 400 <= status < 500 for status in answers.values()), answers
    assert ask(proxy.port, head(), BODY, sni="evil.test")[0] == 421
    assert upstream.heads == []
    assert ask(proxy.port, head(), BODY)[0] == 200
    assert_nothing_kept(proxy)


@pytest.mark.parametrize("name", ["evil.test", "localhost"])  # the latter is the name that the client sends
def test_an_upstream_with_the_certificate_of_another_name_gets_nothing(
    gateway: StartGateway, authority: Authority, name: str
) -> None:
    with Http3Upstream(authority.certificate(name)) as upstream:
        proxy = gateway(upstream)
        status, body = ask(proxy.port, head(), BODY)
        assert status == 502
        assert b"the upstream's certificate is not trusted" in body
        assert upstream.heads == []
    assert_nothing_kept(proxy)


def test_an_upstream_of_an_unknown_authority_gets_nothing(
    gateway: StartGateway, tmp_path_factory: pytest.TempPathFactory
) -> None:
    unknown = Authority(tmp_path_factory.mktemp("unknown"))
    with Http3Upstream(unknown.certificate("127.0.0.1")) as upstream:
        status, body = ask(gateway(upstream).port, head(), BODY)
        assert status == 502
        assert b"the upstream's certificate is not trusted" in body
        assert upstream.heads == []
