"""Responses in the exported filter: read for the log, and edited, as in the addon."""

import json
from itertools import pairwise
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from mitm_gateway.exchange.json_scanner import json_string
from mitm_gateway.exchange.restore_model import (
    JSON_PLACES,
    JsonRestorer,
    LinesRestorer,
    SseRestorer,
    always,
    by_name,
)
from mitm_gateway.llm.apis import APIS, OTHER, TOKENS, Place
from mitm_gateway.llm.body_kind import kind_of
from mitm_gateway.llm.usage import reader_for
from mitm_gateway.wire.aws_eventstream import CONTENT_TYPE as AWS_STREAM
from support.aws import chunk, converse, frame
from support.lua import Library
from support.strategies import JSON_PIECES, ODD_BYTES, STREAM_PIECES
from support.table import table

# Returns the fields that a response has.
READ = """
return function(kind, pieces)
  local reader, all = usage[kind](), {}
  local function note(found)
    for name, value in pairs(found or {}) do all[name] = value end
  end
  for piece in python.iter(pieces) do note(reader:feed(piece)) end
  note(reader:finish())
  return all
end
"""

TYPES = {"sse": "text/event-stream", "json": "application/json", "frames": AWS_STREAM}
COUNTS = st.sampled_from([0, 7, 10**9, 10**9 + 1, -1, None, 1.5, "7"])
NAMES = st.sampled_from(
    ["m", "claude-x", "error", "overloaded_error", "a b", "a\nb", "é", "x" * 65, "", None, 5]
)
CACHED = st.dictionaries(st.sampled_from(["cached_tokens", "x"]), st.integers(-1, 9), min_size=1)


def counts_within(within: str) -> st.SearchStrategy[Any]:
    """Token counts under every name that the APIs write there."""
    apis = [names for names in TOKENS if names.within == within]
    plain = {
        name for each in apis for name in (*each.input, *each.output, each.cache_creation, each.cache_read)
    }
    counts = st.dictionaries(
        st.sampled_from(sorted(name for name in plain if name and "." not in name)), COUNTS
    )
    details = sorted(each.cache_read.split(".")[0] for each in apis if "." in each.cache_read)
    nested = st.dictionaries(st.sampled_from(details), CACHED) if details else st.just({})
    return st.builds(dict.__or__, counts, nested).filter(bool) | st.none()


USAGE = counts_within("usage")
REASONS = [{name: "end_turn"} for name in ("stop_reason", "finish_reason", "finishReason")]
LISTS = st.lists(st.sampled_from([{}, 5, *REASONS, {"finish_reason": None}]), max_size=2)
CODES = NAMES | st.sampled_from([429, True, 5, -500, 1000, 1.5])
ERRORS = st.fixed_dictionaries({}, optional={"type": NAMES, "code": CODES, "x": NAMES}) | NAMES
PART = {
    "model": NAMES, "modelVersion": NAMES, "usage": USAGE, "usageMetadata": counts_within("usageMetadata"),
    "error": ERRORS, "type": NAMES, "code": CODES, "x": USAGE, "stop_reason": NAMES, "choices": LISTS,
    "candidates": LISTS, "promptFeedback": st.builds(dict, blockReason=NAMES),
}  # fmt: skip
PARTS = st.lists(st.sampled_from(list(PART)), min_size=1).flatmap(
    lambda names: st.fixed_dictionaries({name: PART[name] for name in names})
) | st.fixed_dictionaries(
    {
        "object": st.sampled_from(["response", "interaction", "thread.run", "x"]),
        "error": st.none(),
        "status": st.sampled_from(["completed", "in_progress", "incomplete", 5]),
        "incomplete_details": st.sampled_from([None, {"reason": "max_output_tokens"}]),
    }
)
TOLD = st.builds(
    dict.__or__,
    PARTS,
    st.dictionaries(
        st.sampled_from(["message", "response", "delta", "interaction", "x"]), PARTS | COUNTS, max_size=2
    ),
)
FRAMES = [
    "data: %s\n\n", "data:%s\r\n\r\n", "event: x\ndata: %s\nid: 1\n\n", ": %s\n\n", "\ndata: [DONE]\n\n",
]  # fmt: skip
# Python reads bytes of surrogates, and takes a NUL for another encoding.
HARMS = [odd for odd in ODD_BYTES if odd not in (b"\xed\xa0\x80", b"\x00")]
BREAKS = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 4), st.sampled_from([b"", *HARMS])), max_size=3)
CUTS = st.lists(st.floats(0, 1), max_size=4)


def cut(raw: bytes, shares: list[float]) -> list[bytes]:
    places = [0, *sorted(int(share * len(raw)) for share in shares), len(raw)]
    return [raw[first:last] for first, last in pairwise(places)]


def assert_read_alike(lua: Library, kind: str, pieces: list[bytes]) -> None:
    """Hold that filter and addon find the same in a response."""
    reader = reader_for(TYPES[kind])
    for piece in pieces:
        reader.feed(piece)
    usage = reader.finish()
    wanted = {"model": usage.model, "error": usage.error, "input_tokens": usage.input_tokens}
    wanted |= {"output_tokens": usage.output_tokens, "cache_read_tokens": usage.cache_read_tokens}
    wanted |= {"cache_creation_tokens": usage.cache_creation_tokens, "stop_reason": usage.stop_reason}
    found = lua.execute(READ)(kind.encode(), pieces)
    texts = {
        name.decode(): value.decode() if isinstance(value, bytes) else value for name, value in found.items()
    }
    assert texts == {name: value for name, value in wanted.items() if value is not None}, pieces


@given(st.lists(st.tuples(TOLD, st.sampled_from(FRAMES)), max_size=4), st.booleans(), CUTS)
def test_a_stream_yields_the_same_tokens(
    lua: Library, events: list[tuple[dict[str, Any], str]], is_open: bool, shares: list[float]
) -> None:
    for event, _ in events[1:]:
        # The filter looks for the model until it has one.
        for part in (event, *event.values()):
            if isinstance(part, dict):
                part.pop("model", None)
                part.pop("modelVersion", None)
    raw = "".join(frame.replace("%s", json.dumps(event)) for event, frame in events).encode()
    raw = raw.rstrip(b"\n") if is_open else raw
    assert_read_alike(lua, "sse", cut(raw, shares))


@given(TOLD | st.lists(TOLD, max_size=3), st.booleans(), BREAKS, CUTS)
def test_an_answer_yields_the_same_tokens(
    lua: Library, answer: Any, is_spaced: bool, edits: list[tuple[float, int, bytes]], shares: list[float]
) -> None:
    raw = json.dumps(answer, indent=1 if is_spaced else None).encode()
    for share, length, odd in edits:
        place = int(share * len(raw))
        raw = raw[:place] + odd + raw[place + length :]
    assert_read_alike(lua, "json", cut(raw, shares))


FRAME = (
    TOLD.map(chunk)
    | st.dictionaries(st.sampled_from(["inputTokens", "outputTokens", "cacheWriteInputTokens"]), COUNTS).map(
        lambda counts: converse("metadata", usage=counts)
    )
    | st.sampled_from(["end_turn", "max_tokens", "a b", 5]).map(
        lambda reason: converse("messageStop", stopReason=reason)
    )
    | st.sampled_from(
        [
            converse("metadata", usage={"inputTokens": 9, "outputTokens": 4, "cacheWriteInputTokens": 2}),
            frame(b'{"message":"slow down"}', message_type="exception", exception_type="throttlingException"),
            frame(b'{"type":"x"}', message_type="error", error_code="InternalServerException"),
            frame(b"nonsense", message_type="exception"),
            frame(b"nonsense", message_type="event"),
            frame(b"[1]", event_type="chunk"),
        ]
    )
)


@given(st.lists(FRAME, max_size=4), st.integers(0, 20), CUTS)
def test_a_binary_stream_yields_the_same_tokens(
    lua: Library, frames: list[bytes], cut_off: int, shares: list[float]
) -> None:
    raw = b"".join(frames)
    assert_read_alike(lua, "frames", cut(raw[: len(raw) - cut_off], shares))


@table("at", [0, 3, 4, 7, 12, 13, 20])
@table("odd", [b"\x00", b"\xff", b"\x09"])
def test_a_broken_frame_yields_the_same_record(lua: Library, at: int, odd: bytes) -> None:
    raw = converse("metadata", usage={"inputTokens": 9})
    broken = raw[:at] + odd + raw[at + 1 :]
    assert_read_alike(lua, "frames", cut(broken + raw, [0.3, 0.5]))


def test_an_endless_line_is_not_kept(lua: Library) -> None:
    held = lua.execute("""
return function(piece, count)
  local reader = usage.sse()
  for _ = 1, count do reader:feed(piece) end
  return #reader.pieces, reader:feed('\\ndata: {"usage": {"input_tokens": 3}}\\n').input_tokens
end
""")
    assert held(b"data: " + b"x" * 65536, 100) == (0, 3)


# Returns the pieces that leave, and what is held at the end.
RESTORE = """
return function(kind, name, keeps, tree, pieces)
  local rename, passed = restore.always(escapes.quoted(name), keeps), {}
  local restorer = restore[kind](rename, CONSTANTS.response_trees[tree])
  for piece in python.iter(pieces) do passed[#passed + 1] = restorer:feed(piece) end
  passed[#passed + 1] = restorer:flush()
  return table.concat(passed, "|")
end
"""
NAME = 'claude-"é'
PLACES = list(dict.fromkeys([OTHER.response, JSON_PLACES, *(api.response for api in APIS)]))
MODEL = st.sampled_from(["gw", "models/gw", "é", None, {"id": "gw"}, ["gw"]])
ANSWER = st.fixed_dictionaries(
    {},
    optional={
        name: MODEL
        | st.fixed_dictionaries(
            {}, optional={"model": MODEL, "message": st.fixed_dictionaries({"model": MODEL})}
        )
        for name in ("model", "message", "response", "session", "modelVersion", "id", "result", "x")
    },
)
ANSWERS = (ANSWER | st.lists(ANSWER, max_size=3)).map(
    lambda answer: json.dumps(answer, ensure_ascii=False).encode()
)


def assert_restored_alike(lua: Library, kind: str, places: tuple[Place, ...], pieces: list[bytes]) -> None:
    restorers: dict[str, type[JsonRestorer] | type[SseRestorer]] = {
        "json": JsonRestorer, "sse": SseRestorer, "json_lines": LinesRestorer
    }  # fmt: skip
    keeps = places not in (OTHER.response, JSON_PLACES)
    restorer = restorers[kind](always(NAME, keeps_resource=keeps), places)
    wanted = b"|".join([*map(restorer.feed, pieces), restorer.flush()])
    restore, tree = lua.execute(RESTORE), PLACES.index(places) + 1
    assert restore(kind.encode(), NAME.encode(), keeps, tree, pieces) == wanted


@given(st.text(max_size=6))
@example('\ud800é\x00\x7f"')
@example("\udfff\ud83d")
def test_names_are_written_as_json_alike(lua: Library, name: str) -> None:
    written = lua.call("escapes.quoted", name.encode("utf-8", "surrogatepass"))
    assert json.loads(written) == json.loads(json_string(name))


@given(
    st.lists(STREAM_PIECES | ANSWERS.map(b"data: %b\n\n".__mod__), max_size=12).map(b"".join),
    CUTS,
    st.sampled_from(PLACES),
)
def test_models_are_restored_alike_in_a_stream(
    lua: Library, stream: bytes, shares: list[float], places: Any
) -> None:
    assert_restored_alike(lua, "sse", places, cut(stream, shares))


@given(
    st.lists(st.sampled_from(JSON_PIECES), max_size=12).map(b"".join) | ANSWERS, CUTS, st.sampled_from(PLACES)
)
def test_models_are_restored_alike_in_a_response(
    lua: Library, body: bytes, shares: list[float], places: Any
) -> None:
    assert_restored_alike(lua, "json", places, cut(body, shares))


@given(st.lists(ANSWERS, max_size=4).map(b"\n".join), CUTS, st.sampled_from(PLACES))
def test_models_are_restored_alike_in_lines(
    lua: Library, body: bytes, shares: list[float], places: Any
) -> None:
    assert_restored_alike(lua, "json_lines", places, cut(body, shares))


RENAME = """
return function(names, model)
  return restore.by_name(function(sent) return names[sent] end)(model)
end
"""


@given(st.sampled_from(["gw", "é", "x", 'q"', "a\ud800"]).map(json.dumps))
def test_results_of_an_earlier_request_are_renamed_alike(lua: Library, model: str) -> None:
    names = {"gw": "claude", "é": 'c"', 'q"': "c"}
    table = lua.call("function(names) return names end", names)
    assert lua.execute(RENAME)(table, model.encode()) == by_name(names.get)(model.encode())


@given(
    st.sampled_from(["", "application/json; a=b", "text/event-stream", "text/plain", "x/y+json", AWS_STREAM]),
    st.lists(
        st.sampled_from([b"\xef\xbb\xbf", b" ", b"\r\n", b"{", b"[", b"data", b":", b"event:", b"id", b"x"]),
        max_size=4,
    ).map(b"".join),
)
def test_the_kind_of_a_response_is_recognised_alike(lua: Library, content_type: str, start: bytes) -> None:
    kind = kind_of(content_type, start, is_whole=True)
    assert (
        lua.call("kinds.of", content_type, start) == str(kind).replace("aws_eventstream", "frames").encode()
    )
