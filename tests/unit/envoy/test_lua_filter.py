"""How the exported filter reads bodies and answers, in LuaJIT as Envoy runs it: as the addon does."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lupa.luajit21 import LuaRuntime

from mitm_gateway.envoy.lua_filter import library
from mitm_gateway.exchange.json_body import BodyError, scan
from mitm_gateway.llm.usage import reader_for
from support.bodies import NASTY

Read = Callable[[bytes], tuple[bytes | None, ...]]
Lua = Callable[[bytes], Any]
Tell = Callable[[bytes, list[bytes]], dict[bytes, Any]]
# Gives the model and its place, or the reason of a refusal.
SCAN = b"""
return function(text)
  local done, model, first, last = pcall(json.scan, text)
  if done then return "read", model, first, last end
  return "refused", model.reason
end
"""

# What the pieces of an answer tell.
TELL = b"""
return function(kind, pieces)
  local reader, all = usage[kind](true), {}
  local function note(told)
    for name, value in pairs(told or {}) do all[name] = value end
  end
  for piece in python.iter(pieces) do note(reader:feed(piece)) end
  note(reader:finish())
  return all
end
"""


@pytest.fixture(scope="module")
def lua() -> Lua:
    """Runs Lua behind the filter's parts that read bodies."""
    modules = library().encode()
    runtime = LuaRuntime(encoding=None)
    return lambda code: runtime.execute(modules + b"\n" + code)


@pytest.fixture(scope="module")
def tell(lua: Lua) -> Tell:
    function: Tell = lua(TELL)
    return function


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
    good_end = lua(
        b"return function(text, size) return strings.good_end(ffi.cast('const uint8_t *', text), 300, size) end"
    )
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


COUNT_NAMES = [
    "input_tokens", "output_tokens", "prompt_tokens", "completion_tokens", "cache_read_input_tokens",
]  # fmt: skip
COUNTS = st.sampled_from([0, 7, 10**9, 10**9 + 1, -1, None, 1.5, "7"])
NAMES = st.sampled_from(
    ["m", "claude-x", "error", "overloaded_error", "a b", "a\nb", "é", "x" * 65, "", None, 5]
)
CACHED = st.dictionaries(st.sampled_from(["cached_tokens", "x"]), st.integers(-1, 9), min_size=1)
DETAILS = st.dictionaries(st.sampled_from(["input_tokens_details", "prompt_tokens_details"]), CACHED)
TOKENS = (
    st.builds(dict.__or__, st.dictionaries(st.sampled_from(COUNT_NAMES), COUNTS, min_size=1), DETAILS)
    | st.none()
)
ERRORS = st.dictionaries(st.sampled_from(["type", "code", "x"]), NAMES) | NAMES
PART = {"model": NAMES, "usage": TOKENS, "error": ERRORS, "type": NAMES, "code": NAMES, "x": TOKENS}
PARTS = st.lists(st.sampled_from(list(PART)), min_size=1).flatmap(
    lambda names: st.fixed_dictionaries({name: PART[name] for name in names})
)
TOLD = st.builds(
    dict.__or__,
    PARTS,
    st.dictionaries(st.sampled_from(["message", "response", "delta", "x"]), PARTS | COUNTS, max_size=2),
)
FRAMES = [
    "data: %s\n\n",
    "data:%s\r\n\r\n",
    "event: x\ndata: %s\nid: 1\n\n",
    ": %s\n\n",
    "\ndata: [DONE]\n\n",
]
# Python reads bytes of surrogates, and takes a NUL for another encoding.
HARMS = [odd for odd in ODD if odd not in (b"\xed\xa0\x80", b"\x00")]
BREAKS = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 4), st.sampled_from([b"", *HARMS])), max_size=3)
CUTS = st.lists(st.floats(0, 1), max_size=4)


def cut(raw: bytes, shares: list[float]) -> list[bytes]:
    places = [0, *sorted(int(share * len(raw)) for share in shares), len(raw)]
    return [raw[first:last] for first, last in pairwise(places)]


def assert_told_alike(tell: Tell, kind: str, pieces: list[bytes]) -> None:
    """The filter finds in an answer what the addon finds."""
    reader = reader_for({"sse": "text/event-stream", "json": "application/json"}[kind])
    for piece in pieces:
        reader.feed(piece)
    found = reader.finish()
    wanted = {"model": found.model, "error": found.error, "input_tokens": found.input_tokens}
    wanted |= {"output_tokens": found.output_tokens, "cache_read_tokens": found.cache_read_tokens}
    told = tell(kind.encode(), pieces)
    texts = {
        name.decode(): value.decode() if isinstance(value, bytes) else value for name, value in told.items()
    }
    assert texts == {name: value for name, value in wanted.items() if value is not None}, pieces


@given(st.lists(st.tuples(TOLD, st.sampled_from(FRAMES)), max_size=4), st.booleans(), CUTS)
def test_a_stream_tells_the_same(
    tell: Tell, events: list[tuple[dict[str, Any], str]], is_open: bool, shares: list[float]
) -> None:
    for event, _ in events[1:]:
        # The filter looks for the model until it has one.
        for part in (event, *event.values()):
            if isinstance(part, dict):
                part.pop("model", None)
    raw = "".join(frame.replace("%s", json.dumps(event)) for event, frame in events).encode()
    raw = raw.rstrip(b"\n") if is_open else raw
    assert_told_alike(tell, "sse", cut(raw, shares))


@given(TOLD, st.booleans(), BREAKS, CUTS)
def test_an_answer_tells_the_same(
    tell: Tell,
    answer: dict[str, Any],
    is_spaced: bool,
    edits: list[tuple[float, int, bytes]],
    shares: list[float],
) -> None:
    raw = json.dumps(answer, indent=1 if is_spaced else None).encode()
    for share, length, odd in edits:
        place = int(share * len(raw))
        raw = raw[:place] + odd + raw[place + length :]
    assert_told_alike(tell, "json", cut(raw, shares))


def test_an_endless_line_is_not_kept(lua: Lua) -> None:
    held = lua(b"""
return function(piece, count)
  local reader = usage.sse(false)
  for _ = 1, count do reader:feed(piece) end
  return #reader.pieces, reader:feed('\\ndata: {"usage": {"input_tokens": 3}}\\n').input_tokens
end
""")
    assert held(b"data: " + b"x" * 65536, 100) == (0, 3)
