"""Bodies that simdjson checks and bodies that are walked: the same answers, words and bytes."""

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fuzz.targets import SEEDS
from mitm_gateway.exchange import json_body
from mitm_gateway.exchange.body_error import BodyError, Reason
from mitm_gateway.exchange.json_body import scan
from mitm_gateway.exchange.json_edits import edit
from mitm_gateway.exchange.json_parsers import Parsers
from mitm_gateway.llm.apis import Api
from mitm_gateway.rules.field_paths import parse_path
from support.bodies import NASTY, assert_same_both_ways, to, told
from support.strategies import JSONISH
from support.table import table

pytest.importorskip("simdjson", reason="simdjson has no wheel here")

PATHS = [parse_path(text) for text in ("a", "a.b", "a[*].x", "tools[*].input_schema.type", "model", "zz.y")]
EDITS = st.fixed_dictionaries(
    {},
    optional={
        "model": st.sampled_from(["m", "new", "é\ud800"]).map(to),
        "betas": st.sampled_from([lambda names: names, lambda names: (), lambda names: (*names, "b")]),
        "remove": st.lists(st.sampled_from(PATHS), max_size=2),
        "set_": st.lists(st.tuples(st.sampled_from(PATHS), st.just('"v"')), max_size=2),
    },
)
ALL_EDITS: list[dict[str, Any]] = [
    {"model": to("new")},
    {"model": to("m")},
    {"model": to("new"), "remove": [PATHS[0]]},
    {"remove": [PATHS[1]], "set_": [(PATHS[0], "1")]},
    {"set_": [(PATHS[4], '"x"'), (PATHS[5], "[]")]},
    {"model": to("new"), "betas": lambda names: ()},
]
REAL = [seed.read_bytes() for seed in SEEDS["body"]]


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A body with a few bytes replaced, put in or taken out."""
    raw = draw(st.sampled_from([each for each in REAL if len(each) < 20_000]) | JSONISH)
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(raw)))
        piece = draw(
            st.binary(max_size=3) | st.sampled_from([b'"model":"m",', b'"', b"\\", b"\\u006d", b"{", b"]"])
        )
        raw = raw[:at] + piece + raw[at + draw(st.integers(0, 3)) :]
    return raw


@table("raw", NASTY + REAL)
def test_nasty_bodies_are_the_same_both_ways(raw: bytes) -> None:
    for edits in ALL_EDITS:
        assert_same_both_ways(raw, **edits)


@given(mutated(), EDITS)
@example(b"\xef\xbb\xbf", {})
def test_broken_bodies_are_the_same_both_ways(raw: bytes, edits: dict[str, Any]) -> None:
    assert_same_both_ways(raw, **edits)


def test_simdjson_decides_where_it_can(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(raw: bytes, api: Api) -> None:
        raise AssertionError

    monkeypatch.setattr(json_body, "_walked", never)
    assert edit(scan(b'{"model":"a","b":[1.0]}'), model=to("c")) == b'{"model":"c","b":[1.0]}'
    with pytest.raises(AssertionError):
        scan(b'{"model":7}')


@pytest.mark.parametrize("fault", [ValueError, RuntimeError, MemoryError, KeyError])
def test_any_fault_of_simdjson_leaves_it_to_the_walk(
    monkeypatch: pytest.MonkeyPatch, fault: type[Exception]
) -> None:
    class Parser:
        def parse(self, raw: bytes) -> None:
            raise fault(raw)

    monkeypatch.setattr(json_body, "_parsers", Parsers(Parser))
    assert told(b'{"model":"a"}', model=to("b")) == ("a", frozenset({"model"}), b'{"model":"b"}')
    assert told(b'{"model":"a"') == "the body is not valid JSON"


def test_hostile_depth_is_refused_or_edited_right() -> None:
    for depth in (900, 1000, 1020, 1030, 5000, 200_000):
        raw = b'{"model":"a","deep":' + b"[" * depth + b"]" * depth + b"}"
        for edits in ({"model": to("b")}, {"model": to("b"), "remove": [parse_path("deep[0][0]")]}):
            try:
                edited = edit(scan(raw), **edits)
            except BodyError as fault:
                assert str(fault) in (Reason.TOO_DEEP, Reason.OVERGROWN)  # noqa: PT017
            else:
                assert edited.startswith(b'{"model":"b","deep":[')
                assert depth < 200_000


def test_bodies_leave_no_document_behind() -> None:
    found = scan(json.dumps({"model": "a", "text": ["x" * 1000] * 10}).encode())
    assert found.layout is None
    edit(found, model=to("b"))
    assert found.layout is None


def test_a_very_large_body_is_walked(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = b'{"model":"m","a":[0,0]}'
    monkeypatch.setattr(json_body, "_MAX_QUICK_BYTES", len(raw))
    monkeypatch.setattr(json_body, "_walked", lambda raw, api: pytest.fail("walked"))
    assert scan(raw).model == "m"
    walked = scan(b"{}")
    monkeypatch.setattr(json_body, "_walked", lambda raw, api: walked)
    assert scan(raw + b" ") is walked
