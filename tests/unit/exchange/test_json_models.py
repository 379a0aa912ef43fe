"""Model names wherever the table of APIs has them in a body."""

import json
from collections.abc import Iterator
from contextlib import nullcontext
from itertools import chain
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mitm_gateway.exchange import json_models
from mitm_gateway.exchange.body_error import BodyError
from mitm_gateway.exchange.json_body import is_json, scan
from mitm_gateway.exchange.json_edits import edit
from mitm_gateway.llm.apis import APIS, OTHER, Api
from mitm_gateway.rules.field_paths import parse_path
from support.bodies import to, walked
from support.counted_work import assert_linear
from support.endpoints import API_BY_NAME
from support.table import table

BATCHES, GEMINI, REALTIME = (API_BY_NAME[name] for name in ("message-batches", "gemini", "realtime"))


def batch(*params: str) -> bytes:
    return b'{"requests":[%s]}' % ",".join(f'{{"custom_id":"é","params":{text}}}' for text in params).encode()


@table(
    ("api", "before", "after"),
    [
        (BATCHES, batch('{"model":"a","n":1}', '{"n":1.0, "model" : "b"}'),
         batch('{"model":"ax","n":1}', '{"n":1.0, "model" : "bx"}')),
        (BATCHES, batch('{"tools":[{"model":"c"}],"model":"a","x":{"model":"c"}}'),
         batch('{"tools":[{"model":"cx"}],"model":"ax","x":{"model":"c"}}')),
        (BATCHES, batch('{"tools":[5,{"x":1}],"fallbacks":5,"model":"a"}', '{"model":"b","fallbacks":[{"model":"c"}]}'),
         batch('{"tools":[5,{"x":1}],"fallbacks":5,"model":"ax"}', '{"model":"bx","fallbacks":[{"model":"cx"}]}')),
        (BATCHES, batch('{"mod\\u0065l":"a"}', '{"model":"\\u0061"}'),
         batch('{"mod\\u0065l":"ax"}', '{"model":"ax"}')),
        (BATCHES, batch('{"model":null}', "{}"), batch('{"model":null}', "{}")),
        (BATCHES, b'{"model":"a","requests":[]}', b'{"model":"a","requests":[]}'),
        (GEMINI, b'{"model":"models/a","requests":[{"model":"models/b"},{"model":"c"}]}',
         b'{"model":"models/ax","requests":[{"model":"models/bx"},{"model":"cx"}]}'),
        (GEMINI, b'{"model":"projects/p/locations/l/publishers/google/models/a"}',
         b'{"model":"projects/p/locations/l/publishers/google/models/ax"}'),
        (GEMINI, b'{"generateContentRequest":{"model":"models/a"}}',
         b'{"generateContentRequest":{"model":"models/ax"}}'),
        (REALTIME, b'{"session":{"type":"realtime","model":"a"}}',
         b'{"session":{"type":"realtime","model":"ax"}}'),
        (OTHER, b'{"model":{"id":"a","speed":"fast"}}', b'{"model":{"id":"ax","speed":"fast"}}'),
        (OTHER, b'{"model":null}', b'{"model":null}'),
        (OTHER, b'{"requests":[{"params":{"model":"a"}}]}', b'{"requests":[{"params":{"model":"a"}}]}'),
    ],
)  # fmt: skip
def test_every_name_is_mapped_and_no_other_byte_changes(api: Api, before: bytes, after: bytes) -> None:
    assert edit(scan(before, api), model=lambda name: f"{name}x") == after


@table(
    ("api", "body", "reason"),
    [
        (BATCHES, batch('{"model":7}'), '"model" is not a string'),
        (BATCHES, batch('{"model":{"id":"a"}}'), '"model" is not a string'),
        (BATCHES, batch('{"model":"a","model":"b"}'), 'the body has a second "model" key'),
        (BATCHES, batch('{"model":"a","mod\\u0065l":"b"}'), 'the body has a second "model" key'),
        (BATCHES, batch("[]"), "a part of the body that contains models is not an object or a list"),
        (BATCHES, batch('"text"'), "a part of the body that contains models is not an object or a list"),
        (BATCHES, b'{"requests":{}}', "a part of the body that contains models is not an object or a list"),
        (BATCHES, b'{"requests":[],"requests":[]}', "the body has a repeated key that a rule edits"),
        (BATCHES, batch('{"model":"a",}'), "the body is not valid JSON"),
        (BATCHES, b'{"requests":[1,]}', "a part of the body that contains models is not an object or a list"),
        (BATCHES, b'{"requests":[{"params":{"model":"a"}},]}', "the body is not valid JSON"),
        (BATCHES, b'{"requests":[{"params":{"model":"a"}}', "the body is not valid JSON"),
        (BATCHES, b'{"requests":[{"params":{"model":"a" "b":1}}]}', "the body is not valid JSON"),
    ],
)
def test_a_body_whose_models_cannot_be_read_is_refused(api: Api, body: bytes, reason: str) -> None:
    with pytest.raises(BodyError, match="^" + reason.replace("(", r"\(")):
        scan(body, api)


def test_a_hostile_number_of_entries_or_names_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BodyError, match="too many models"):
        scan(batch(*(f'{{"model":"{number}"}}' for number in range(2000))), BATCHES)
    monkeypatch.setattr(json_models, "MAX_STEPS", 100)
    with pytest.raises(BodyError, match="too many members"):
        scan(b'{"requests":[' + b"{}," * 100 + b"{}]}", BATCHES)


def test_names_beside_many_members_are_mapped_in_linear_work() -> None:
    def rename(size: int) -> None:
        models = [{"model": f"m{each}"} for each in range(size)]
        members = {f"k{each}": "a value" for each in range(size)}
        body = scan(json.dumps({"tools": models, **members}).encode(), API_BY_NAME["messages"])
        edit(body, model="{}x".format, set_=[(parse_path("b"), "1")])

    assert_linear(rename, 400)


def test_other_edits_of_the_same_part_are_made_as_well() -> None:
    raw = batch('{"model":"a","store":true}', '{"model":"b"}')
    removed = edit(scan(raw, BATCHES), model=to("x"), remove=[parse_path("requests[*].params.store")])
    assert removed == batch('{"model":"x"}', '{"model":"x"}')
    assert b"model" not in edit(
        scan(raw, BATCHES), model=to("x"), remove=[parse_path("requests[*].params.model")]
    )
    added = edit(scan(raw, BATCHES), model=to("x"), set_=[(parse_path("requests[*].params.top_k"), "5")])
    assert json.loads(added)["requests"][1]["params"] == {"model": "x", "top_k": 5}


ELEMENTS = (
    '{"model":"a","messages":[{"role":"user","content":"x"}]}', '{"max_tokens":5, "messages":[{"x":[1]}], "model" : "b"}',
    '{"messages":[{"content":"model"}],"model":"c"}', '{"messages":[{"model":"x"}],"model":"d"}',
    '{"model":"e","model":"e"}', '{"x":1}', '{"model":null}', '{"model":5}',
    '{"model":"f","tools":[{"model":"g"}]}', '{"tools":[{"model":"h"}]}',
    r'{"model":"\u00e9"}', '{"x":{"params":{"model":"x"}},"model":"i"}', '"model"', "[]", '{"model":"j","x":}', "null",
)  # fmt: skip
FRAMES = ('{"custom_id":"1","params":%s}', '{ "params" : %s , "custom_id":"model"}', '{"x":[],"params":%s}',
          '{"params":{"x":1},"params":%s}')  # fmt: skip


def names_or_fault(elements: list[str]) -> list[str]:
    try:
        return list(scan(b'{"requests":[%s]}' % " , ".join(elements).encode(), BATCHES).models)
    except BodyError as fault:
        return [str(fault)]


@given(st.lists(st.tuples(st.sampled_from(FRAMES), st.sampled_from(ELEMENTS)), min_size=1, max_size=5))
def test_each_element_of_a_batch_is_read_as_if_it_were_alone(parts: list[tuple[str, str]]) -> None:
    elements = [frame % element for frame, element in parts]
    alone = [names_or_fault([element]) for element in elements]
    wanted = next((each for each in alone if each and " " in each[0]), None)
    assert names_or_fault(elements) == (wanted or list(dict.fromkeys(chain(*alone))))


NAME = st.sampled_from(["a", "b/c", "é", 'q"', "models/a", "\\u006d"])
OTHERS = st.dictionaries(
    st.sampled_from(["x", "é", "params"]), st.sampled_from([1, "model", {"model": "z"}, [1]])
)


def document(place: tuple[str | None, ...], draw: Any) -> Any:
    if not place:
        return draw(NAME)
    step, *rest = place
    if step is None:
        return [document(tuple(rest), draw) for _ in range(draw(st.integers(0, 3)))]
    others = {key: value for key, value in draw(OTHERS).items() if key != step}
    items = [*others.items(), (step, document(tuple(rest), draw))]
    return dict(draw(st.permutations(items)))


def names_at(place: tuple[str | None, ...], value: Any) -> Iterator[str]:
    if not place:
        yield value
    elif place[0] is None:
        for item in value:
            yield from names_at(place[1:], item)
    else:
        yield from names_at(place[1:], value[place[0]])


@given(st.data(), st.booleans(), st.sampled_from([None, 1]), st.booleans())
def test_at_any_place_of_any_api_the_name_is_found_and_mapped(
    data: st.DataObject, escapes: bool, indent: int | None, is_walked: bool
) -> None:
    api = data.draw(st.sampled_from([api for api in (*APIS, OTHER) if api.request]))
    place = data.draw(st.sampled_from(api.request))
    wanted = document(place, data.draw)
    raw = json.dumps(wanted, ensure_ascii=escapes, indent=indent).encode()
    with walked() if is_walked else nullcontext():
        body = scan(raw, api)
        edited = edit(body, model=to("MAPPED"))
    names = list(names_at(place, wanted))
    short = [name.rpartition("models/")[2] if api.has_resource_names else name for name in names]
    assert list(body.models) == list(dict.fromkeys(short))
    assert all(name.endswith("MAPPED") for name in names_at(place, json.loads(edited)))
    assert edited.count(b"MAPPED") == len(names)


@table(
    ("content_type", "raw", "expected"),
    [
        ("application/json", b"x", True),
        ("", b"x", True),
        ("text/plain", b"x", True),
        ("multipart/form-data; boundary=x", b"--x", False),
        ("Application/SDP", b"v=0", False),
        ("application/octet-stream", b"\x00", False),
        ("application/x-www-form-urlencoded", b"model=a", False),
        ("audio/wav", b"RIFF", False),
        ("image/png", b"\x89PNG", False),
        ("video/mp4", b"", False),
        ("application/octet-stream", b' \n{"model":"a"}', True),
        ("application/x-www-form-urlencoded", b'\xef\xbb\xbf{"model":"a"}', True),
        ("multipart/form-data", b"[", True),
        ("application/sdp", '{"model":"a"}'.encode("utf-16"), True),
        ("application/sdp", '{"model":"a"}'.encode("utf-32"), True),
    ],
)
def test_a_body_of_another_type_is_json_only_if_it_looks_like_json(
    content_type: str, raw: bytes, expected: bool
) -> None:
    assert is_json(content_type, raw) is expected
