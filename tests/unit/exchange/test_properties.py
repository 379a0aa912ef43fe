"""The fuzzer's promises on its seeds and on any bytes, and the guard's on heads that disguise a host or a key."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fuzz.targets import SEEDS, TARGETS
from mitm_gateway.exchange import guard
from mitm_gateway.exchange.headers import Secrets, outgoing_fields
from mitm_gateway.exchange.plan import Pass, Plan, decide
from mitm_gateway.text.redact import Secret, is_key_header
from mitm_gateway.wire.request import Arrival
from support.builders import BEARER, make_head, make_rule, make_ruleset
from support.strategies import JSON_PIECES, JSONISH, STREAM_PIECES
from support.table import table

CASES = [(name, seed) for name, seeds in SEEDS.items() for seed in seeds]
API, CK, GW = "api.anthropic.com", "client-key-0123456789", "gateway-key-0123456789"
RULES = make_ruleset(
    make_rule("r", API, upstream="https://gw.test", auth=BEARER), credentials={"gw": {"env": "GW"}}
)


@table(("name", "seed"), CASES)
def test_the_seeds_keep_the_promises(name: str, seed: Path) -> None:
    TARGETS[name](seed.read_bytes())


EVENTS = st.lists(
    STREAM_PIECES
    | st.sampled_from(
        [*JSON_PIECES, b"\xef\xbb\xbf", b"id: 1", b'data: {"usage":\ndata: {"output_tokens":7}}\n\n',
         b'data: {"message":{"model":"m","usage":{"input_tokens":3}}}\n\n']
    )
    | st.binary(max_size=9),
    max_size=12,
).map(b"".join)  # fmt: skip
FIRST = st.binary(min_size=1, max_size=1)  # chooses the cuts of a stream
MADE_UP = {
    "body": st.binary(max_size=120) | JSONISH,
    "events": st.builds(bytes.__add__, FIRST, EVENTS),
    "rules": st.binary(max_size=300),
}


@pytest.mark.parametrize("name", TARGETS)
@given(data=st.data())
def test_any_bytes_keep_the_promises(name: str, data: st.DataObject) -> None:
    TARGETS[name](data.draw(MADE_UP[name]))


@pytest.mark.parametrize("name", TARGETS)
@given(data=st.data())
def test_seeds_with_a_few_bytes_changed_keep_the_promises(name: str, data: st.DataObject) -> None:
    text = bytearray(data.draw(st.sampled_from(SEEDS[name])).read_bytes()[:4096])
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(text)))
        text[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    TARGETS[name](bytes(text))


NAMES = st.sampled_from([API, f"{API}.", API.upper(), f"{API}.evil.test", f"evil.{API}", "evil.test", f"{API}:443",
                         f"{API}@evil.test", f"evil.test#{API}", "127.0.0.1", "", f"{API}:80", f"{API} "])  # fmt: skip
FIELDS = st.lists(
    st.tuples(
        st.sampled_from(["x-api-key", "X_Api-Key", "AUTHORIZATION", "cookie", "x-a", "Origin", "connection"]),
        st.sampled_from([CK, f"Bearer {CK}", "a\r\nx-api-key: b", "authorization", "https://evil.test", "a"]),
    ),
    max_size=4,
)


@given(
    target=st.sampled_from([API, "evil.test", f"{API}.evil.test", "127.0.0.1"]),
    hosts=st.lists(NAMES, max_size=2),
    sni=st.none() | NAMES,
    fields=FIELDS,
    query=st.sampled_from(["", f"?key={CK}", f"?a=1&%6bey={CK}&b=2"]),
    path=st.sampled_from(["/v1/messages", "/v1/../x", "//x", "/%2e%2e/"]),
)
def test_a_request_is_planned_whole_or_refused_and_never_unmatched_where_it_names_a_rules_host(
    target: str, hosts: list[str], sni: str | None, fields: list[tuple[str, str]], query: str, path: str
) -> None:
    named = [("Host", host) for host in hosts]
    head = make_head(path + query, [*named, *fields], host=target, add_host=False)
    arrival = Arrival(tls=True, sni=sni, inside_connect=True)
    if guard.check_admission(head, arrival, guard.Policy(), RULES.knows_host):
        return
    outcome = decide(RULES, head, arrival)
    if isinstance(outcome, Pass):
        assert target != API
        assert not any(name.lower().removesuffix(".") == API for name in [*hosts, sni or ""])
        return
    assert isinstance(outcome, Plan)
    assert (outcome.destination.host, outcome.destination.scheme) == ("gw.test", "https")
    sent = outgoing_fields(outcome, head, Secrets(Secret(GW), {"gw": Secret(GW)}))
    names = [name.decode() for name, _ in sent]
    assert [name for name in names if is_key_header(name)] == ["Authorization"]
    assert [value for name, value in sent if name.lower() == b"host"] == [b"gw.test"]
    assert CK not in outcome.target
    assert not any(mark in value for _, value in sent for mark in (b"\r", b"\n", b"\0"))
