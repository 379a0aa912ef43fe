"""How the exported filter reads bodies, in LuaJIT as Envoy runs it: as strictly as the addon, wherever a fault stands."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import resources
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lupa.luajit21 import LuaRuntime

from mitm_gateway.body import BodyError, scan
from support.bodies import NASTY

Read = Callable[[bytes], tuple[bytes | None, ...]]
Lua = Callable[[bytes], Any]
# Gives the model and its place, or the reason of a refusal.
SCAN = b"""
return function(text)
  local done, model, first, last = pcall(json.scan, text)
  if done then return "read", model, first, last end
  return "refused", model.reason
end
"""


@pytest.fixture(scope="module")
def lua() -> Lua:
    """Runs Lua behind the filter's parts that read bodies."""
    parts = resources.files("mitm_gateway.export").joinpath("lua")
    text = b"\n".join(parts.joinpath(name).read_bytes() for name in ("strings.lua", "json.lua"))
    runtime = LuaRuntime(encoding=None)
    return lambda code: runtime.execute(b'local ffi = require("ffi")\n' + text + b"\n" + code)


@pytest.fixture(scope="module")
def read(lua: Lua) -> Read:
    function: Read = lua(SCAN)
    return function


def assert_read_alike(read: Read, raw: bytes) -> None:
    """The filter takes what the addon takes, and sees the same model in it."""
    try:
        model = scan(raw).model
    except BodyError:
        wanted: tuple[bytes | None, ...] = (b"refused",)
    else:
        wanted = (b"read", None if model is None else model.encode("utf-8", "surrogatepass"))
    assert read(raw)[: len(wanted)] == wanted, raw


FILLINGS = [
    "abcdefgh",
    "é",
    "xé",
    "漢",
    "a漢",
    "😀",
    "ab😀",
    r"\n",
    r"a\\",
    r"\"",
    r"\u00e9",
    r"a\ud83d\ude00",
]
EACH_PLACE = ("abcdefgh", "é", "漢", r"\n")
ODD = [
    b'"', b"\\", b"\\x", b"\\u12", b"\\u12g4", b"\\u123g", b"\x1f", b"\x00", b"\x7f", b"\x80", b"\xbf", b"\xc0\x80",
    b"\xc2", b"\xc2\x41", b"\xe0\x9f\xbf", b"\xe0\xa0\x80", b"\xe2\x82", b"\xed\x9f\xbf", b"\xed\xa0\x80",
    b"\xf0\x8f\xbf\xbf", b"\xf0\x90\x80\x80", b"\xf1\x80\x80", b"\xf4\x8f\xbf\xbf", b"\xf4\x90\x80\x80",
    b"\xf5\x80\x80\x80", b"\xff", b"\\/", b"\\\\", b'","b":"',
]  # fmt: skip


# Four readings of 256 bytes each: every place of one round, and some of the next.
@pytest.mark.parametrize(("filling", "step"), [(text, 1 if text in EACH_PLACE else 11) for text in FILLINGS])
def test_a_fault_is_seen_wherever_it_stands_in_a_long_string(read: Read, filling: str, step: int) -> None:
    text = filling.encode() * (4000 // len(filling.encode()))
    for place in range(250, 1600, step):
        for odd in ODD:
            assert_read_alike(read, b'{"a":"%s%s%s","model":"m"}' % (text[:place], odd, text[place:]))


def test_a_text_that_ends_in_a_long_string_is_not_read_beyond(lua: Lua) -> None:
    good_end = lua(b"return function(text, size) return strings.good_end(as_bytes(text), 300, size) end")
    for filling in (b"a", "é".encode(), "漢".encode(), b"\\n"):
        text = filling * (8000 // len(filling))
        for size in range(1200, 2400):
            # Had it looked at what follows, it had gone on there.
            assert 300 - 32 <= good_end(text, size) <= size


# But for what is nested deeper than the filter goes.
@pytest.mark.parametrize("raw", [raw for raw in NASTY if raw.count(b"[") < 990])
def test_a_short_body_is_read_alike(read: Read, raw: bytes) -> None:
    assert_read_alike(read, raw)


TEXTS = st.lists(st.one_of(st.sampled_from(FILLINGS).map(lambda text: text * 200), st.text(max_size=20).map(
    lambda text: json.dumps(text, ensure_ascii=False)[1:-1])), max_size=8)  # fmt: skip
EDITS = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 4), st.sampled_from([b"", *ODD])), max_size=3)


@given(TEXTS, TEXTS, EDITS)
def test_bodies_that_something_was_done_to_are_read_alike(
    read: Read, first: list[str], second: list[str], edits: list[tuple[float, int, bytes]]
) -> None:
    a, b = "".join(first), "".join(second)
    raw = f'{{"a":["{a}",1.5e3],"model":"m","b":{{"{b}":null}}}}'.encode("utf-8", "surrogatepass")
    for share, length, odd in edits:
        place = int(share * len(raw))
        raw = raw[:place] + odd + raw[place + length :]
    assert_read_alike(read, raw)
