"""The memory that a JSON text needs as data, estimated without reading it."""

from __future__ import annotations

import json
from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st

from mitm_gateway.text import bounded_json

VALUES = st.recursive(
    st.sampled_from([0, None, "", "ab", '[{",:', "\\"]),
    lambda below: st.one_of(
        st.lists(below, max_size=9),
        st.dictionaries(st.sampled_from("abcdef"), below, max_size=6),
        st.integers(0, 120).map(lambda count: dict.fromkeys(map(str, range(count)), 0)),
    ),
)


@given(VALUES)
def test_a_slim_text_is_not_overgrown(value: object) -> None:
    text = json.dumps(value, separators=(",", ":")).encode()
    with patch.object(bounded_json, "SMALL_TEXT", 0):
        assert not (bounded_json.is_slim(text, text.count(b",")) and bounded_json.is_overgrown(text))
