"""Every function of the filter that reads a peer's bytes takes work in proportion to them."""

import pytest

from mitm_gateway.envoy.lua_constants import api_data
from mitm_gateway.envoy.lua_filter import literal
from support.builders import make_rule
from support.counted_work import MAX_RATIO
from support.endpoints import API_BY_NAME
from support.lua import data_of
from support.lua_work import counted
from support.table import table

pytestmark = pytest.mark.exhaustive
N = 100
RULE = make_rule(
    models={"map": {"a*b*c": "x", "*-*": "y", "x*-*": "a{1}/{2}"}}, beta={"drop": ["a*b"], "rename": {"a": "b"}},
    body={"remove": ["a[*].b", "b", "a[b=*x*].c"], "set": {"c.d": 1, "a[*].x": "y"}}, query={"set": {"a": "b"}},
)  # fmt: skip
DATA = data_of(RULE)
EDITS = {name: DATA[name] for name in ("beta", "body_remove", "body_set", "query")}
OF_TEXT = (
    "text.trimmed", "text.normal_path", "text.unquoted", "text.quoted", "text.as_value", "head.has_odd_segments",
    "keys.bare_key", "keys.websocket_keys", "keys.without_websocket_key", "keys.sent_query", "head.without_token_betas",
    "head.beta_names", "escapes.decoded", "json.items", "logged.shown", "growth.is_excessive",
)  # fmt: skip
READERS = {
    "restore.json": "restore.json(NAME, TREE)",
    "restore.sse": "restore.sse(NAME, TREE)",
    "restore.json_lines": "restore.json_lines(NAME, TREE)",
    "usage.sse": "usage.sse()",
    "usage.json": "usage.json()",
    "usage.frames": "usage.frames()",
}
CALLS = {
    **{name: f"{name}(value)" for name in OF_TEXT},
    **{name: f"fed({make}, {{ value }})" for name, make in READERS.items()},
    **{f"{name} by byte": f"fed({make}, bytes_of(value))" for name, make in READERS.items()},
    "text.without_final": "text.without_final(value, '/')",
    "head.identify": "head.identify('POST', value)",
    "keys.query_keys": "keys.query_keys(value, keys.is_key_parameter)",
    "head.edited_query": "head.edited_query(value, RULE.query)",
    "head.edited_betas": "head.edited_betas(RULE.beta, head.beta_names(value))",
    "model_map.sent_model": "model_map.sent_model(RULE.models, value)",
    "head.query_places": "head.query_places(value, 'model')",
    "head.is_json": "head.is_json('audio/x', value)",
    "head.refusal": "head.refusal('anthropic', 400, value)",
    "models.scan": "models.scan(value, CONSTANTS.other)",
    "models.scan in a batch": "models.scan(value, API)",
    "models.renamed": "models.renamed(value, (models.scan(value, API)), RULE.models)",
    "model_map.asked_for": "model_map.asked_for(RULE.models, value)",
    "json.fields": "json.fields(value, { a = true })",
    "edits.apply": "models.scan(value, CONSTANTS.other) and edits.apply(value, RULE)",
    "edits.apply without a token's betas": "models.scan(value, CONSTANTS.other) and "
    "edits.apply(value, { body_remove = {}, body_set = {} }, true)",
    "estimate.tokens": "models.scan(value, CONSTANTS.other) and estimate.tokens(value, 'anthropic')",
    "restore.always": "NAME(value)",
    "kinds.of": "kinds.of('', value)",
}
FEEDING = """
CONSTANTS.max_shown_name, CONSTANTS.growth.small_text = 1000000, 0
local NAME, TREE = restore.always('"m"'), CONSTANTS.response_trees[1]
local function fed(reader, pieces)
  for _, piece in ipairs(pieces) do reader:feed(piece) end
  return (reader.flush or reader.finish)(reader)
end
local function bytes_of(text)
  local pieces = {}
  for place = 1, #text do pieces[place] = text:sub(place, place) end
  return pieces
end
"""
BATCHES = API_BY_NAME["message-batches"]
SETTING = f"local RULE, API = {literal(EDITS | {'models': DATA['models']})}, {literal(api_data(BATCHES))}\n{FEEDING}"
# A start, a piece that is repeated, and an end.
LINES = [
    ("", "a", ""), ("", " ", ""), ("a", " ", "a"), ("", "\u3000", "a"), ("", "/", "a"), ("", "=", ""),
    ("Basic ", "=", "x"), ("Bearer ", " ", "x"), ("Basic ", "A", ""), ("", ",", ""), ("", "a,", ""),
    ("", "-", "x"), ("a", "b", "d"), ("?", "&", ""), ("?", "key=", "x"), ("?", ";", "key"), ("?", "[", ""),
    ("?", "%", ""), ("?", "%25", "key"), ("", "%41", ""), ("", "\\", "x"), ("", "/a", ""), ("", "/;", "."),
    ("", "/%2e", "x"), ("/models/", "a", ""), ("/models/", ":", "/x"), ("/models/", "/models/", ":"),
    ("/models/", "a:b", "/operations/"), ("/model/", "/invoke", "/"), ("/model/", "a/", "invoke"),
    ("", "/openai/deployments/", ""), ("/openai/deployments/", "a", ""), ("/messages/batches/", "a", ""),
    ("", "/images/", ""), ("oauth-", ",oauth-", ""), ("openai-insecure-api-key.", ",openai-insecure-api-key.", ""),
    ("", "\x00", ""), ("", "é", ""), ("", "\\u00", "x"),
]  # fmt: skip
# One without headers and payload.
FRAME = "\0\0\0\x10" + "\0" * 12
BODIES = [
    ('{"requests":[', '{"params":{"model":"m"}},', "{}]}"), ('{"requests":[', "{},", '{"params":{"model":"m"}}]}'),
    ('{"a":"', "x", '"}'), ('{"a":"', "\\\\", '"}'), ('{"a":"', '\\"', '"}'), ('{"a":"', "\\u00e9", '"}'),
    ('{"a":"', "é", '"'), ('{"a":[', "{},", "1]}"), ('{"a":[', "[],", "1]}"), ('{"a":[', '{"b":1},', "1]}"),
    ('{"a":', "[", ""), ('{"a":', '{"a":', ""), ("{", '"a":1,', '"b":2}'), ("{", '"model":"x",', '"b":2}'),
    (FRAME, FRAME, ""), ("\0\0\x7f\0" + "\0" * 8, "x", ""), ("\0\0\0\x40\0\0\0\x28\0\0\0\0", "\1a\0", ""),
    ("{", '"\\u006dodel":1,', ""), ('{"a":', "9", "}"), ("", " ", "{}"),
    ('{"anthropic_beta":[', '"a",', '"b"]}'), ('{"messages":[', '{"type":"x","a":["é"]},', "1]}"),
    ('{"model":"', "x", '"}'), ('{"messages":"', "\\n", '"}'), ('{"message":{', '"model":"x",', '"a":1}}'),
    ("data: ", "x", "\n\n"), ("", "data: x\n", ""), ("", 'data: {"model":"x"}\n\n', ""),
    ("", 'data: {"usage":{"input_tokens":1}}\n\n', ""), ("", "\r", ""), ("", "\n", ""),
    ('data: {"usage"', " ", ":{"), ("", '"usage"', "{"), ("", '"error" ', ""), ("da", "t", "a:"),
    ('data: {"\\u006d', "\\", ""), ('data: {"model":"', "x", ""), ("", "\\u00", ""), ("", '"model"', ""),
]  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_twice_the_bytes_take_at_most_three_times_the_work(name: str) -> None:
    call = counted(f"{SETTING}\nreturn function(value) return {CALLS[name]} end")
    for start, piece, end in (*LINES, *BODIES):
        once, twice = (
            call((start + piece * size + end).encode("utf-8", "surrogatepass")) for size in (N, 2 * N)
        )
        assert twice <= MAX_RATIO * max(once, N), (start, piece, end)


@table(
    ("start", "piece", "code"),
    [
        ("", "/", "return text:gsub('/+$', '')"),
        ("/models/", "a", "return text:match('/models/[^/:]+[^/:]*:')"),
        ("", "a", "for place = 1, #text do text:sub(place) end"),
    ],
)
def test_the_count_shows_work_that_grows_faster(start: str, piece: str, code: str) -> None:
    call = counted(f"return function(text) {code} end")
    assert call(f"{start}{piece * 2 * N}x".encode()) > MAX_RATIO * call(f"{start}{piece * N}x".encode())
