"""Request bodies in the exported filter: checked, edited and estimated as in the addon."""

import json
from functools import cache
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mitm_gateway.envoy.lua_constants import CONSTANTS, api_data
from mitm_gateway.exchange import json_body, local_answers
from mitm_gateway.exchange.body_error import BodyError
from mitm_gateway.exchange.json_body import is_json, scan
from mitm_gateway.exchange.json_edits import edit
from mitm_gateway.exchange.local_answers import CHARACTERS_PER_TOKEN, estimated_tokens
from mitm_gateway.llm.apis import APIS, OTHER, Api
from mitm_gateway.rules.schema import Rule
from mitm_gateway.text import bounded_json
from mitm_gateway.text.bounded_json import MAX_BODY_VALUES
from support.bodies import NASTY, OVERGROWN, overgrown
from support.builders import make_rule
from support.lua import Library, Refused, data_of
from support.strategies import JSONISH, ODD_BYTES
from support.table import table


def found_in(lua: Library, raw: bytes, api: Api = OTHER) -> object:
    """Return the models that the filter finds in a body, or that it refuses the body."""
    try:
        _, names, _ = lua.call("models.scan", raw, api_data(api))
    except Refused:
        return "refused"
    return [name.decode("utf-8", "surrogatepass") for name in names.values()]


def assert_read_alike(lua: Library, raw: bytes, api: Api = OTHER) -> None:
    """Hold that filter and addon accept the same bodies, and find the same models in them."""
    try:
        models = list(scan(raw, api).models)
    except BodyError:
        assert found_in(lua, raw, api) == "refused", raw
    else:
        assert found_in(lua, raw, api) == models, raw


FILLINGS = [
    "abcdefgh", "é", "xé", "漢", "a漢", "😀", "ab😀", r"\n", r"a\\", r"\"", r"\u00e9", r"a\ud83d\ude00",
]  # fmt: skip
EACH_PLACE = ("abcdefgh", "é", "漢", r"\n")


# Four readings of 256 bytes each: every place of one round, and some of the next.
@pytest.mark.exhaustive
@pytest.mark.parametrize(("filling", "step"), [(text, 1 if text in EACH_PLACE else 11) for text in FILLINGS])
def test_a_fault_is_found_at_any_place_in_a_long_string(lua: Library, filling: str, step: int) -> None:
    text = filling.encode() * (4000 // len(filling.encode()))
    for place in range(250, 1600, step):
        for odd in ODD_BYTES[place % 4 :: 4]:
            assert_read_alike(lua, b'{"a":"%s%s%s","model":"m"}' % (text[:place], odd, text[place:]))


def test_a_text_that_ends_in_a_long_string_is_not_read_beyond(lua: Library) -> None:
    good_end = lua.execute(
        "return function(text, size) return strings.good_end(ffi.cast('const uint8_t *', text), 300, size) end"
    )
    for filling in (b"a", "é".encode(), "漢".encode(), b"\\n"):
        text = filling * (8000 // len(filling))
        for size in range(1200, 2400):
            # Had it looked at what follows, it had gone on there.
            assert 300 - 32 <= good_end(text, size) <= size


# But for what is nested deeper than the filter goes.
@table("raw", [raw for raw in NASTY if raw.count(b"[") < 990])
def test_a_short_body_is_read_alike(lua: Library, raw: bytes) -> None:
    assert_read_alike(lua, raw)


@table("items", OVERGROWN.values())
def test_a_body_that_is_small_as_text_and_large_as_data_is_refused_alike(lua: Library, items: bytes) -> None:
    with pytest.raises(Refused, match="too many arrays, objects"):
        lua.call("models.scan", overgrown(items), api_data(OTHER))


@pytest.mark.parametrize(("name", "is_read"), [("a" * 8192, True), ("a" * 8193, False), ("é" * 4097, False)])
def test_a_long_model_name_is_refused_alike(lua: Library, name: str, is_read: bool) -> None:
    raw = json.dumps({"model": name, "x": "a" * 20_000}, ensure_ascii=False).encode()
    assert_read_alike(lua, raw)
    assert (found_in(lua, raw) != "refused") is is_read


@pytest.mark.exhaustive
@pytest.mark.parametrize("marks", [MAX_BODY_VALUES, MAX_BODY_VALUES + 1])
def test_a_body_of_millions_of_values_is_refused_alike(lua: Library, marks: int) -> None:
    raw = b'{"model":"m","a":[",:",' + b"0," * (marks - 9) + b"0]}"
    assert lua.call("growth.is_excessive", raw) == bounded_json.is_overgrown(raw) == (marks > MAX_BODY_VALUES)


@pytest.mark.exhaustive
@pytest.mark.parametrize("values", [bounded_json.MAX_VALUES, bounded_json.MAX_VALUES + 1])
def test_tokens_of_a_body_with_many_values_are_estimated_from_its_size_alike(
    lua: Library, values: int
) -> None:
    raw = b'{"messages":[' + b"[]," * ((values - 2) // 2) + b"0," * (values % 2) + b'",[{"]}'
    by_size = int(len(raw) / CHARACTERS_PER_TOKEN + 0.5)
    assert (estimated_tokens(raw) == by_size) is (values > bounded_json.MAX_VALUES)
    assert lua.call("estimate.tokens", raw, "anthropic") == estimated_tokens(raw)


# Strings without marks of their own: outside the exact count the addon counts those too.
VALUES = st.recursive(
    st.sampled_from([0, None, "", "ab", "\\", "a\\\\"]),
    lambda below: st.lists(below, max_size=9) | st.dictionaries(st.sampled_from("abcdef"), below, max_size=6),
)


@given(VALUES)
def test_the_memory_that_a_body_needs_is_counted_alike(value: object) -> None:
    text = json.dumps(value, separators=(",", ":")).encode()
    with patch.object(bounded_json, "SMALL_TEXT", 0):
        assert lua_with(small_text=0).call("growth.is_excessive", text) == bounded_json.is_overgrown(text)


@cache
def lua_with(**growth: int) -> Library:
    """Return the library with these bounds on the memory of a body."""
    return Library(growth={**CONSTANTS["growth"], **growth})


TEXTS = st.lists(st.one_of(st.sampled_from(FILLINGS).map(lambda text: text * 200), st.text(max_size=20).map(
    lambda text: json.dumps(text, ensure_ascii=False)[1:-1])), max_size=8)  # fmt: skip
EDITS = st.lists(
    st.tuples(st.floats(0, 1), st.integers(0, 4), st.sampled_from([b"", *ODD_BYTES])), max_size=3
)


@given(TEXTS, TEXTS, EDITS)
def test_bodies_that_something_was_done_to_are_read_alike(
    lua: Library, first: list[str], second: list[str], edits: list[tuple[float, int, bytes]]
) -> None:
    a, b = "".join(first), "".join(second)
    raw = f'{{"a":["{a}",1.5e3],"model":"m","b":{{"{b}":null}}}}'.encode("utf-8", "surrogatepass")
    for share, length, odd in edits:
        place = int(share * len(raw))
        raw = raw[:place] + odd + raw[place + length :]
    assert_read_alike(lua, raw)


NAME = st.sampled_from(
    ["m", "models/m", "p/l/models/m", "tunedModels/é", "/models/m", "a/b", None, 5, {"id": "m"}]
)
REQUEST = st.fixed_dictionaries(
    {}, optional={"model": NAME, "params": st.fixed_dictionaries({}, optional={"model": NAME}), "x": NAME}
)
NESTED = st.fixed_dictionaries(
    {},
    optional={
        "model": NAME, "requests": st.lists(REQUEST, max_size=3) | REQUEST, "session": REQUEST, "batch": REQUEST,
        "generateContentRequest": REQUEST | st.none(), "x": REQUEST,
    },
)  # fmt: skip


@given(NESTED, st.sampled_from(list({api.request: api for api in (OTHER, *APIS)}.values())))
def test_the_models_of_every_api_are_found_and_renamed_alike(
    lua: Library, body: dict[str, Any], api: Api
) -> None:
    raw = json.dumps(body, ensure_ascii=False, indent=1).encode()
    assert_read_alike(lua, raw, api)
    if found_in(lua, raw, api) == "refused":
        return
    rule = make_rule(models={"map": {"m": "sent", "é": 'q"'}})
    assert rule.models is not None
    places, *_ = lua.call("models.scan", raw, api_data(api))
    renamed = lua.call("models.renamed", raw, list(places.values()), data_of(rule)["models"])
    assert renamed == edit(scan(raw, api), model=rule.models.sent_for)


TYPES = ["application/json", "", "multipart/form-data; boundary=x", " Audio/wav", "application/sdp", "image"]
STARTS = [
    b"{", b" \n[", b"\xef\xbb\xbf {", b"x", b"", b"\xff\xfe{", b"\xfe\xff", b"\x00\x00\xfe\xff", b"\x0b{",
    b"\xa0{",
]  # fmt: skip


@table("start", STARTS)
@table("kind", TYPES)
def test_json_is_recognised_alike(lua: Library, kind: str, start: bytes) -> None:
    assert lua.call("head.is_json", kind, start) == is_json(kind, start)


PATHS = (
    "a[x=*]", "a[b=x].a", "a[*].a[a=*a*].b", "a", "a.b", "a[*].x", "a[1]", "a[*].a.b", "model", "zz.y",
    "anthropic_beta", "additionalModelRequestFields.anthropic_beta",
)  # fmt: skip
EDITED = st.fixed_dictionaries(
    {},
    optional={
        "beta": st.sampled_from(
            [{"add": ["b"]}, {"drop": ["*"]}, {"rename": {"a": "c-1"}}, {"keep": ["m*l"]}]
        ),
        "body": st.fixed_dictionaries(
            {},
            optional={
                "remove": st.lists(st.sampled_from(PATHS), min_size=1, max_size=3),
                "set": st.dictionaries(
                    st.sampled_from(PATHS), st.sampled_from(["v", [1.5], None]), min_size=1, max_size=3
                ),
            },
        ),
    },
)
VALUES = st.recursive(
    st.sampled_from(["x", "a", "é😀", 1, -0.5, None, True]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from("abx"), inner, max_size=3),
    max_leaves=20,
)
BODIES = JSONISH | st.fixed_dictionaries(
    {},
    optional={
        "model": st.just("m"),
        "a": VALUES,
        "zz": VALUES,
        "anthropic_beta": st.lists(st.sampled_from("amb")),
        "additionalModelRequestFields": st.dictionaries(
            st.sampled_from(["anthropic_beta", "a"]), st.lists(st.sampled_from(["a", "m", "b", 1])) | VALUES
        )
        | VALUES,
    },
).map(lambda body: json.dumps(body, indent=1, ensure_ascii=False).encode())


def edited_by_addon(rule: Rule, raw: bytes) -> object:
    betas = rule.beta.edited if rule.beta else None
    try:
        return edit(scan(raw), betas=betas, remove=rule.body.remove, set_=rule.body.set_texts)
    except BodyError:
        return "refused"


def edited_by_filter(lua: Library, rule: Rule, raw: bytes) -> object:
    data = data_of(rule)
    try:
        lua.call("models.scan", raw, api_data(OTHER))
        return lua.call(
            "edits.apply", raw, {name: data[name] for name in ("beta", "body_remove", "body_set")}
        )
    except Refused:
        return "refused"


@given(BODIES, EDITED)
def test_a_body_is_edited_alike(lua: Library, raw: bytes, keys: dict[str, Any]) -> None:
    rule = make_rule(**keys)
    assert edited_by_filter(lua, rule, raw) == edited_by_addon(rule, raw)


@cache
def few() -> Library:
    """Return the library with a bound of four members."""
    return Library(max_members=4)


@given(BODIES, EDITED)
def test_all_edits_of_a_request_share_one_bound_on_members(raw: bytes, keys: dict[str, Any]) -> None:
    rule = make_rule(**keys)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_body, "MAX_MEMBERS", 4)
        patch.setattr(json_body, "simdjson", None)
        assert edited_by_filter(few(), rule, raw) == edited_by_addon(rule, raw)


ESTIMATED = JSONISH | st.dictionaries(
    st.sampled_from(["system", "messages", "tools", "contents", "a"]),
    VALUES | st.just({"type": "base64", "data": "x" * 50}) | st.lists(VALUES),
).map(lambda body: json.dumps(body).encode())


@given(ESTIMATED, st.sampled_from(["anthropic", "gemini"]))
def test_tokens_are_estimated_alike(lua: Library, raw: bytes, form: Any) -> None:
    if found_in(lua, raw) != "refused":
        assert lua.call("estimate.tokens", raw, form) == estimated_tokens(raw, form)


@given(ESTIMATED)
def test_tokens_of_a_body_with_many_backslashes_are_estimated_from_its_size_alike(raw: bytes) -> None:
    library = lua_with(many_backslashes=2)
    if found_in(library, raw) != "refused":
        with patch.object(local_answers, "MAX_BACKSLASHES", 2):
            tokens = estimated_tokens(raw)
        assert library.call("estimate.tokens", raw, "anthropic") == tokens
        if raw.count(b"\\") > 2:
            assert tokens == max(1, int(len(raw) / CHARACTERS_PER_TOKEN + 0.5))


def test_the_deepest_accepted_body_is_edited_and_estimated(lua: Library) -> None:
    raw = b'{"messages":' + b'[{"a":' * 494 + b"1" + b"}]" * 494 + b"}"
    assert lua.call("estimate.tokens", raw, "anthropic") == round((len("systemmessagestools") + 495) / 3.6)
    rule = make_rule(body={"remove": ["messages" + "[*].a" * 494]})
    assert edited_by_filter(lua, rule, raw) == raw.replace(b'"a":1', b"")
