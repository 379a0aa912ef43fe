"""Byte-exact edits of JSON bodies."""

import copy
import json
import tracemalloc
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mitm_gateway.exchange import json_body as module
from mitm_gateway.exchange import json_walk
from mitm_gateway.exchange.body_error import BodyError, OvergrownError
from mitm_gateway.exchange.json_body import scan
from mitm_gateway.exchange.json_edits import edit
from mitm_gateway.exchange.json_walk import Visit, Walker
from mitm_gateway.rules.field_paths import parse_path
from support.bodies import OVERGROWN, overgrown, to, told, walked
from support.table import table


@pytest.fixture(autouse=True, scope="module", params=["simdjson", "walk"])
def way(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every test here runs with simdjson and without."""
    if request.param == "walk":
        with walked():
            yield "walk"
    else:
        pytest.importorskip("simdjson", reason="simdjson has no wheel here")
        yield "simdjson"


NESTED = b'"messages":[{"input":{"model":"x"},"n":[1.0,1E400,-0,12345678901234567890123]}]'


@table(
    ("before", "after"),
    [
        (b'{"model":"old",%s}', b'{"model":"new",%s}'),
        (b'{%s,"model":"old"}', b'{%s,"model":"new"}'),
        (b' {\n %s ,\t"model" : "old" }\n', b' {\n %s ,\t"model" : "new" }\n'),
        (b'\xef\xbb\xbf{%s,"model":"old"}', b'\xef\xbb\xbf{%s,"model":"new"}'),
        (b'{"\\u006dodel":"old",%s}', b'{"\\u006dodel":"new",%s}'),
        (b'{%s,"model":"\\u006fld"}', b'{%s,"model":"new"}'),
        (b'{"t":"\\ud800 \xc3\xa9 \\" \\\\",%s,"model":"old"}', b'{"t":"\\ud800 \xc3\xa9 \\" \\\\",%s,"model":"new"}'),
        (b'{"a":"model","b":["model","old"],%s,"model":"old"}', b'{"a":"model","b":["model","old"],%s,"model":"new"}'),
    ],
)  # fmt: skip
def test_only_the_model_changes(before: bytes, after: bytes) -> None:
    body = scan(before % NESTED)
    assert body.model == "old"
    assert edit(body, model=to("new")) == after % NESTED


def test_a_name_beyond_ascii_is_written_as_it_is() -> None:
    edited = edit(scan('{"é":"☃","model":"a"}'.encode()), model=to('n"é'))
    assert edited.decode() == '{"é":"☃","model":"n\\"é"}'


@table("raw", [b"{}", b'{"messages":[{"model":"x"}]}', b'{"model":"same"}'])
def test_a_body_without_an_edit_is_the_same_object(raw: bytes) -> None:
    body = scan(raw)
    assert edit(body, model=to("same"), betas=lambda names: names, remove=[parse_path("a.b")]) is raw


@table(
    ("raw", "reason"),
    [
        (b'{"model":"a","model":"b"}', 'the body has a second "model" key'),
        (b'{"model":"a","\\u006dodel":"a"}', 'the body has a second "model" key'),
        (b'["model"]', "the body is not a JSON object"),
        (b'"model"', "the body is not a JSON object"),
        (b'{"model":["a"]}', '"model" is not a string'),
        (b'{"model":{}}', '"model" is not a string'),
        (b'{"model":{"id":null}}', '"model" is not a string'),
        (b'{"model":{"id":7}}', '"model" is not a string'),
        (b'{"model":{"id":"a","id":"b"}}', "the body has a repeated key that a rule edits"),
        (b'{"model":null,"model":"a"}', 'the body has a second "model" key'),
        (b'{"model":"a"', "the body is not valid JSON"),
        (b'{"model":"a"} x', "the body is not valid JSON"),
        (b'{"model":"a",}', "the body is not valid JSON"),
        (b"{'model':'a'}", "the body is not valid JSON"),
        (b'{"a":NaN}', "the body is not valid JSON"),
        (b'{"a":"\n"}', "the body is not valid JSON"),
        (b"", "the body is not valid JSON"),
        (b'{"a":"\xff"}', "the body is not UTF-8"),
        ('{"model":"a"}'.encode("utf-16"), "the body is not UTF-8"),
        (b'{"a":' + b"[" * 100_000, "the body is nested too deep"),
        (b'{"a":' + b"9" * 5000 + b"}", "the body has a number with too many digits"),
    ],
)
def test_an_unreadable_body_is_refused_with_the_reason(raw: bytes, reason: str) -> None:
    with pytest.raises(BodyError) as raised:
        scan(raw)
    assert str(raised.value) == reason


@table(
    ("before", "path", "after"),
    [
        (b'{"a":1,"b":2,"c":3}', "a", b'{"b":2,"c":3}'),
        (b'{"a":1,"b":2,"c":3}', "b", b'{"a":1,"c":3}'),
        (b'{"a":1,"b":2,"c":3}', "c", b'{"a":1,"b":2}'),
        (b'{"a":1}', "a", b"{}"),
        (b'{"a":{"b":1,"c":[1.0]}}', "a.b", b'{"a":{"c":[1.0]}}'),
        (b'{"t":[{"x":1,"d":true},{"d":false},5]}', "t[*].d", b'{"t":[{"x":1},{},5]}'),
        (b'{"t":[1,2,3]}', "t[1]", b'{"t":[1,3]}'),
        (b'{"t":[{"a":{"b":1}}]}', "t[*].a.b", b'{"t":[{"a":{}}]}'),
        (b'{"t":{"d":1}}', "t[*].d", b'{"t":{"d":1}}'),
        (b'{"t":5}', "t.a.b", b'{"t":5}'),
    ],
)
def test_fields_are_removed(before: bytes, path: str, after: bytes) -> None:
    assert edit(scan(before), remove=[parse_path(path)]) == after


@table(
    ("before", "path", "after"),
    [
        ('[{"type":"web_search_1"},{"type":"bash"}]', "a[type=web_search_*]", '[{"type":"bash"}]'),
        ('[{"n":1,"type":"w"},{"type":"b","n":1}]', "a[type=w].n", '[{"type":"w"},{"type":"b","n":1}]'),
        ('[{"text":"x-billing: a.b [c"},{"text":"hi"}]', "a[text=x-billing: *]", '[{"text":"hi"}]'),
        ('[{"t\\u0079pe":"\\u0077"},{}]', "a[type=w]", "[{}]"),
        ('[{"type":1},{"type":["w"]},"w",["w"],{"x":{"type":"w"}}]', "a[type=*]", None),
        ('[{"type":"x","type":"w"},{"type":"b"}]', "a[type=w]", '[{"type":"b"}]'),
        ('[[{"type":"w"}],[{"type":"b"}]]', "a[*][type=w]", '[[],[{"type":"b"}]]'),
        ('{"type":"w"}', "a[type=w]", None),
    ],
)
def test_list_items_are_selected_by_a_key(before: str, path: str, after: str | None) -> None:
    body = scan(f'{{"a":{before},"z":1}}'.encode())
    edited = edit(body, remove=[parse_path(path)]).decode()
    assert edited == f'{{"a":{before if after is None else after},"z":1}}'


def test_a_value_is_set_in_selected_items_only() -> None:
    body = scan(b'{"a":[{"type":"w","n":1},{"type":"b","n":1},{"type":"w"}]}')
    edited = edit(body, set_=[(parse_path("a[type=w].n"), "2"), (parse_path("b[type=w].n"), "2")])
    assert edited == b'{"a":[{"type":"w","n":2},{"type":"b","n":1},{"type":"w","n":2}]}'


def test_a_parent_and_its_child_may_both_be_removed() -> None:
    paths = [parse_path(text) for text in ("a.b", "a", "c[*].d", "c[0]")]
    body = scan(b'{"a":{"b":1},"c":[{"d":1},{"d":2,"e":3}],"f":1}')
    assert edit(body, remove=paths) == b'{"c":[{"e":3}],"f":1}'


@table(
    ("before", "path", "after"),
    [
        (b'{"a":1}', "a", b'{"a":5}'),
        (b"{}", "a", b'{"a":5}'),
        (b'{"b":1.0}', "a", b'{"b":1.0,"a":5}'),
        (b'{"b":{"c":1}}', "b.a", b'{"b":{"c":1,"a":5}}'),
        (b'{"x":1}', "b.a", b'{"x":1,"b":{"a":5}}'),
        (b'{"t":[{"a":1},{}]}', "t[*].a", b'{"t":[{"a":5},{"a":5}]}'),
    ],
)
def test_fields_are_set(before: bytes, path: str, after: bytes) -> None:
    assert json.loads(edit(scan(before), set_=[(parse_path(path), "5")])) == json.loads(after)


def test_the_last_member_goes_while_another_is_added() -> None:
    body = scan(b'{"model":"m","context_management":{"a":1}}')
    edited = edit(body, remove=[parse_path("context_management")], set_=[(parse_path("max_tokens"), "5")])
    assert edited == b'{"model":"m","max_tokens":5}'


@table(
    ("fields", "edited"),
    [
        (b'"anthropic_beta":["a","b"],"k":1.0', b'"anthropic_beta":["b"],"k":1.0'),
        (b'"k":1.0,"anthropic_beta":["a"]', b'"k":1.0'),
        (b'"anthropic_beta":["b" ]', b'"anthropic_beta":["b" ]'),
        (b'"anthropic_beta":null', b'"anthropic_beta":null'),
        (b'"k":{"anthropic_beta":["a"]}', b'"k":{"anthropic_beta":["a"]}'),
        (b'"anthropic_beta":"a"', None),
        (b'"anthropic_beta":["a"],"anthropic_beta":["b"]', None),
    ],
)
@table("body", [b"{%b}", b'{"additionalModelRequestFields":{%b} ,"x":1.0}'])
def test_betas_are_edited_at_the_top_and_in_converse(
    body: bytes, fields: bytes, edited: bytes | None
) -> None:
    try:
        result = edit(scan(body % fields), betas=lambda names: tuple(each for each in names if each != "a"))
    except BodyError:
        result = None
    assert result == (None if edited is None else body % edited)


def test_all_edits_work_together() -> None:
    body = scan(b'{"model":"old","a":{"b":1,"c":2},"z":[1.0]}')
    edited = edit(body, model=to("new"), remove=[parse_path("a.b")], set_=[(parse_path("a.d"), '"x"')])
    assert edited == b'{"model":"new","a":{"c":2,"d":"x"},"z":[1.0]}'


KEYS = st.sampled_from(["model", "a", "b", "tools", "é"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 10**20) | st.sampled_from(["", "model", '"', "\\", "é", "x"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=10,
)
OBJECTS = st.dictionaries(KEYS, VALUES, max_size=4).map(
    lambda data: {key: ("m" if key == "model" else value) for key, value in data.items()}
)
PATHS = st.sampled_from(["a", "a.b", "tools[*].a", "tools[0]", "é.model", "b[*].b.a", "a[1].b"])


def without(data: Any, steps: tuple[Any, ...]) -> None:
    """Removes a place from parsed data."""
    step, rest = steps[0], steps[1:]
    if isinstance(data, dict) and isinstance(step, str) and step in data:
        if rest:
            without(data[step], rest)
        else:
            del data[step]
    elif isinstance(data, list) and not isinstance(step, str):
        places = list(range(len(data))) if step is None else [step] if step < len(data) else []
        if rest:
            for place in places:
                without(data[place], rest)
        else:
            for place in reversed(places):
                del data[place]


@given(OBJECTS, st.sampled_from([None, 1]), st.booleans())
def test_a_model_edit_changes_only_its_span(data: dict[str, Any], indent: int | None, escaped: bool) -> None:
    raw = json.dumps(data, indent=indent, ensure_ascii=escaped).encode()
    edited = edit(scan(raw), model=to("another-name"))
    if "model" not in data:
        assert edited is raw
        return
    assert json.loads(edited) == {**data, "model": "another-name"}
    start = next(place for place in range(len(raw)) if raw[place] != edited[place])
    tail = len(raw) - start - len(b"m")
    assert raw[:start] == edited[:start]
    assert raw[len(raw) - tail :] == edited[len(edited) - tail :]


@given(OBJECTS, PATHS, st.sampled_from([None, 1]))
def test_removing_is_the_same_on_parsed_data(data: dict[str, Any], path: str, indent: int | None) -> None:
    raw = json.dumps(data, indent=indent).encode()
    expected = copy.deepcopy(data)
    without(expected, parse_path(path).steps)
    edited = edit(scan(raw), remove=[parse_path(path)])
    assert json.loads(edited) == expected
    assert (edited is raw) == (expected == data)


@given(OBJECTS, st.lists(PATHS, max_size=2), st.sampled_from(["a", "new", "tools[*].new", "é.a"]))
def test_removing_and_setting_is_the_same_on_parsed_data(
    data: dict[str, Any], removed: list[str], added: str
) -> None:
    raw = json.dumps(data).encode()
    expected = copy.deepcopy(data)
    for path in removed:
        without(expected, parse_path(path).steps)
    step_by_step = raw
    if removed:
        step_by_step = edit(scan(step_by_step), remove=[parse_path(path) for path in removed])
        assert json.loads(step_by_step) == expected or len(removed) > 1
    step_by_step = edit(scan(step_by_step), set_=[(parse_path(added), '"x"')])
    at_once = edit(
        scan(raw), remove=[parse_path(path) for path in removed], set_=[(parse_path(added), '"x"')]
    )
    assert json.loads(at_once) == json.loads(step_by_step)


@pytest.fixture
def visits(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Counts the members that are walked."""
    counted = 0
    walk = Walker.walk

    def counting(walker: Walker, text: str, opening: int, visit: Visit, first: int | None = None) -> int:
        def noted(*member: Any) -> int:
            nonlocal counted
            counted += 1
            return visit(*member)

        return walk(walker, text, opening, noted, first)

    monkeypatch.setattr(Walker, "walk", counting)
    return lambda: counted


@pytest.mark.parametrize(
    "edits",
    [
        {"remove": [parse_path("a[*][*].x")]},
        {"set_": [(parse_path("a[*][*].x"), "1")]},
        {"remove": [parse_path("b[*].x"), parse_path("c[*].x")]},
        {"set_": [(parse_path(f"{place}.x"), "1") for place in ("a[0][*]", "a[1][*]", "b[*]")]},
    ],
    ids=["remove", "set", "two-members", "one-after-another"],
)
def test_all_edits_together_walk_a_bounded_number_of_members(
    monkeypatch: pytest.MonkeyPatch, visits: Callable[[], int], edits: dict[str, Any]
) -> None:
    monkeypatch.setattr(module, "MAX_MEMBERS", 100)
    row = b"[" + b",".join([b'{"y":0}'] * 45) + b"]"
    body = scan(b'{"a":[' + b",".join([row] * 45) + b'],"b":' + row + b',"c":' + row + b"}")
    before = visits()
    with pytest.raises(BodyError, match="too many members"):
        edit(body, **edits)
    assert visits() - before <= 100 + len(body.keys) + 1


@table("items", OVERGROWN.values())
def test_a_body_that_needs_far_more_memory_than_its_size_is_refused_before_it_is_built(items: bytes) -> None:
    raw = overgrown(items)
    tracemalloc.start()
    try:
        with pytest.raises(OvergrownError):
            scan(raw)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # The strings of one piece are apart from each other for a moment.
    assert peak < 6 * len(raw) + (16 << 20)


@pytest.mark.parametrize("size", [9 << 20, 60 << 20])
def test_a_body_of_millions_of_numbers_is_refused_without_a_walk(
    monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(json_walk, "_scan_value", None)
    monkeypatch.setattr(module, "simdjson", None)
    with pytest.raises(OvergrownError):
        scan(overgrown(b"0," * (size // 2)))


def test_an_object_too_large_to_be_built_may_pass_but_not_be_edited() -> None:
    members = {f"a key of some length {number:011}": 0 for number in range(20_000)}
    raw = json.dumps({"model": "m", "a": members}).encode()
    with pytest.raises(OvergrownError):
        edit(scan(raw), remove=[parse_path("a.b")])


@table(
    ("raw", "session"),
    [
        (b'{"model":"m","metadata":{"user_id":"u","more":{}}}', "u"),
        (b'{"metadata":{"user_id":1,"session_id":"s"},"prompt_cache_key":[]}', "s"),
        (b'{"prompt_cache_key":"\\u0061","metadata":{"user_id":"u"}}', "a"),
        (b'{"messages":[{"metadata":{"user_id":"u"},"prompt_cache_key":"k"}]}', None),
        (b'{"metadata":' + b"[" * 900 + b"]" * 900 + b"}", None),
        (b'{"metadata":{"user_id":"{' + b"[" * 5000 + b'"}}', None),
        (json.dumps({"metadata": dict.fromkeys(map(str, range(5000)), 0)}).encode(), None),
    ],
)
def test_a_body_names_its_session_at_its_top(raw: bytes, session: str | None) -> None:
    assert scan(raw).session == session


@table(
    "value",
    [
        ["[{" * 200_000],
        [{"role": "user", "content": [{"type": "text", "text": "How are you? [1] {2}"}]}] * 5000,
        {"input": [list(range(10_000, 10_500))] * 100},
        [{"type": "object", "properties": {name: {"type": "string"} for name in "abcdef"}}] * 3000,
    ],
)
def test_ordinary_large_bodies_are_read(value: object) -> None:
    raw = json.dumps({"model": "m", "a": value}).encode()
    assert len(raw) > 1 << 18
    assert scan(raw).model == "m"


@pytest.mark.parametrize(("members", "is_taken"), [(100, True), (101, False)])
def test_the_members_at_the_top_are_bounded(
    monkeypatch: pytest.MonkeyPatch, members: int, is_taken: bool
) -> None:
    monkeypatch.setattr(module, "MAX_MEMBERS", 100)
    told_of = told(b"{" + b",".join(b'"%d":0' % number for number in range(members)) + b"}")
    assert (told_of != "the body has too many members") == is_taken


def test_a_rename_alone_needs_no_walk(way: str, visits: Callable[[], int]) -> None:
    for raw in (b' {"model":"old","a":[1.0]}', b'\xef\xbb\xbf{"a":{"b":"\\"model"},"model": "old"}'):
        body = scan(raw)
        before = visits()
        edited = edit(body, model=to("new"), remove=[parse_path("b.c")], betas=lambda names: ())
        assert edited == raw.replace(b'"old"', b'"new"')
        if way == "simdjson":
            assert visits() == before == 0
