"""Every function of the filter that reads a peer's bytes takes work in proportion to them."""

import pytest

from mitm_gateway.envoy.lua_constants import api_data
from mitm_gateway.envoy.lua_filter import literal
from support.core import make_rule
from support.endpoints import API_BY_NAME
from support.lua import data_of
from support.lua_work import counted
from support.table import table

pytestmark = pytest.mark.exhaustive
N = 100
MAX_RATIO = 3
RULE = make_rule(
    models={"map": {"a*b*c": "x", "*-*": "y", "x*-*": "a{1}/{2}"}}, beta={"drop": ["a*b"], "rename": {"a": "b"}},
    body={"remove": ["a[*].b", "b", "a[b=*x*].c"], "set": {"c.d": 1, "a[*].x": "y"}}, query={"set": {"a": "b"}},
)  # fmt: skip
DATA = data_of(RULE)
EDITS = {name: DATA[name] for name in ("beta", "body_remove", "body_set", "query")}
CALLS: dict[str, str] = {
    "text.trimmed": "return text.trimmed",
    "text.normal_path": "return text.normal_path",
    "text.unquoted": "return text.unquoted",
    "text.quoted": "return text.quoted",
    "text.as_value": "return text.as_value",
    "text.without_final": "return function(value) return text.without_final(value, '/') end",
    "head.has_odd_segments": "return head.has_odd_segments",
    "head.identify": "return function(path) return head.identify('POST', path) end",
    "keys.bare_key": "return keys.bare_key",
    "logged.shown": "CONSTANTS.max_shown_name = 1000000 return logged.shown",
    "keys.query_keys": "return function(query) return keys.query_keys(query, keys.is_key_parameter) end",
    "keys.websocket_keys": "return keys.websocket_keys",
    "keys.without_websocket_key": "return keys.without_websocket_key",
    "keys.sent_query": "return keys.sent_query",
    "head.edited_query": "return function(query) return head.edited_query(query, RULE.query) end",
    "head.without_token_betas": "return head.without_token_betas",
    "head.beta_names": "return head.beta_names",
    "head.edited_betas": "return function(value) return head.edited_betas(RULE.beta, head.beta_names(value)) end",
    "model_map.sent_model": "return function(name) return model_map.sent_model(RULE.models, name) end",
    "models.scan in a batch": "return function(text) return models.scan(text, API) end",
    "models.renamed": "return function(text) return models.renamed(text, (models.scan(text, API)), RULE.models) end",
    "head.query_places": "return function(text) return head.query_places(text, 'model') end",
    "head.is_json": "return function(text) return head.is_json('audio/x', text) end",
    "head.refusal": "return function(text) return head.refusal('anthropic', 400, text) end",
    "escapes.decoded": "return escapes.decoded",
    "models.scan": "return function(text) return models.scan(text, CONSTANTS.other) end",
    "growth.is_excessive": "CONSTANTS.growth.small_text = 0 return growth.is_excessive",
    "json.fields": "return function(text) return json.fields(text, { a = true }) end",
    "edits.apply": "return function(text) models.scan(text, CONSTANTS.other) return edits.apply(text, RULE) end",
    "edits.apply without a token's betas": "return function(text) models.scan(text, CONSTANTS.other) "
    "return edits.apply(text, { body_remove = {}, body_set = {} }, true) end",
    "estimate.tokens": "return function(text) models.scan(text, CONSTANTS.other) "
    "return estimate.tokens(text, 'anthropic') end",
    "restore.json": "return whole(function() return restore.json(NAME, TREE) end)",
    "restore.sse": "return whole(function() return restore.sse(NAME, TREE) end)",
    "restore.json by byte": "return bytewise(function() return restore.json(NAME, TREE) end)",
    "restore.sse by byte": "return bytewise(function() return restore.sse(NAME, TREE) end)",
    "restore.json_lines": "return whole(function() return restore.json_lines(NAME, TREE) end)",
    "restore.always": "return NAME",
    "kinds.of": "return function(text) return kinds.of('', text) end",
    "usage.sse": "return whole(function() return usage.sse() end)",
    "usage.json": "return whole(function() return usage.json() end)",
    "usage.frames": "return whole(function() return usage.frames() end)",
    "usage.frames by byte": "return bytewise(function() return usage.frames() end)",
    "json.items": "return json.items",
    "model_map.asked_for": "return function(name) return model_map.asked_for(RULE.models, name) end",
    "usage.sse by byte": "return bytewise(function() return usage.sse() end)",
}
FEEDING = """
local NAME, TREE = restore.always('"m"'), CONSTANTS.response_trees[1]
local function fed(pieces, make)
  return function(text)
    local reader = make()
    for _, piece in ipairs(pieces(text)) do reader:feed(piece) end
    return (reader.flush or reader.finish)(reader)
  end
end
local function whole(make) return fed(function(text) return { text } end, make) end
local function bytes_of(text)
  local pieces = {}
  for place = 1, #text do pieces[place] = text:sub(place, place) end
  return pieces
end
local function bytewise(make) return fed(bytes_of, make) end
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
    call = counted(f"{SETTING}\n{CALLS[name]}")
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
