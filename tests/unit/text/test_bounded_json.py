"""The memory that a JSON text needs as data, estimated without reading it."""

import json
import random

import pytest

from mitm_gateway.text import bounded_json
from mitm_gateway.text.bounded_json import (
    ARRAY_VALUES,
    MAX_BODY_VALUES,
    has_too_many_values_in_turns,
    is_overgrown,
    is_overgrown_in_turns,
    is_sparse,
)
from support.bodies import OVERGROWN, overgrown
from support.table import table


@pytest.fixture(autouse=True)
def _always_the_same_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_json, "urandom", random.Random(7).randbytes)


def test_a_conversation_is_sparse() -> None:
    words = "How are you, and is this {code[0]} right, or would you rather write it otherwise? "
    content = [{"type": "text", "text": words * 40}]
    text = json.dumps([{"role": "user", "content": content}] * 3000).encode()
    assert is_sparse(text)
    assert not is_overgrown(text)


@table("items", OVERGROWN.values())
def test_a_text_that_is_large_as_data_is_not_sparse(items: bytes) -> None:
    assert not is_sparse(overgrown(items))


@table("item", [b"0,", b"[],", b'"",', b'{"":0},', b'{"a":{"b":[[]]}},'])
@table("place", [0.0, 0.4, 1.0])
def test_dense_values_are_found_wherever_they_are(item: bytes, place: float) -> None:
    words = b'"' + b"word " * 200_000 + b'",'
    dense = item * (len(words) // len(item))
    before = int(place * 200_000)
    text = b'["' + b"word " * before + b'",' + dense + b'"' + b"word " * (200_000 - before) + b'"]'
    assert not is_sparse(text)


@table(
    ("item", "count", "is_over"),
    [
        (b'[["%b"]],' % (b"a" * 300), MAX_BODY_VALUES // (2 * ARRAY_VALUES + 1) + 1, True),
        (b'[["%b"]],' % (b"a" * 300), MAX_BODY_VALUES // (2 * ARRAY_VALUES + 1) - 1, False),
        (b'"[,:{[,:{\\"",', MAX_BODY_VALUES - 10, False),
    ],
)
def test_arrays_objects_and_members_count_outside_strings(item: bytes, count: int, is_over: bool) -> None:
    assert is_overgrown(b"[" + item * count + b"0]") is is_over


def test_a_text_is_counted_in_turns() -> None:
    text = b'["' + b'\\"' * (1 << 20) + b'"]'
    assert sum(1 for _ in is_overgrown_in_turns(text)) > 8
    text = b'["' + b"[" * (1 << 20) + b'"]'
    assert sum(1 for _ in has_too_many_values_in_turns(text)) > 3


def test_a_small_text_needs_no_sample() -> None:
    assert is_sparse(b"[" * (1 << 18))
