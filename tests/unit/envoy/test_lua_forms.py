"""Forms in the exported filter: their models are found, renamed and bounded as in the addon."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mitm_gateway.envoy.lua_constants import api_data
from mitm_gateway.exchange.body_error import BodyError
from mitm_gateway.exchange.form_body import MAX_FIELD_NAME, MAX_FIELDS, read_form
from mitm_gateway.exchange.json_models import MAX_NAME_BYTES
from support.builders import make_rule
from support.endpoints import API_BY_NAME
from support.lua import Library, Refused, data_of
from support.table import table

REALTIME = API_BY_NAME["realtime"]
PAIRS, PARTS = "application/x-www-form-urlencoded", "multipart/form-data; boundary=b"
FIELD = b'--b\r\nContent-Disposition: form-data; name="%b"\r\n\r\n'


FORMS = st.lists(
    st.sampled_from([
        "--b", "\r\n", "\r\n", "\r\n\r\n", "--", "\r\n--b", 'Content-Disposition: form-data; name="model"', "a", "é", " ",
        'content-disposition:form-data;name=model ', '; filename="x"', "\r\n--b--", "\udcff", "; name=", '"', "; x=",
        '--b\r\nContent-Disposition: form-data; name="session"\r\n\r\n{"model":"a","x":"é"}\r\n--b--', "{", "}",
        "--b \t\r\n", "\n--b\n",
        '--b\r\nContent-Disposition: form-data; name="session[model]"\r\n\r\na\r\n--b--', "model=a", "&", "=", "%61", "+",
        '"model":"a"', "session%5Bmodel%5D=a", "[0]", "[]", "session", "model",
    ]),
    max_size=14,
).map("".join)  # fmt: skip
FORM_TYPES = st.sampled_from([
    "multipart/form-data; boundary=b", 'Multipart/Form-Data;x=1; Boundary="b"', "multipart/form-data",
    "multipart/mixed; boundary=b", "multipart/form-data; boundary=b, application/json",
    "application/x-www-form-urlencoded; charset=utf-8",
])  # fmt: skip


@given(FORMS, FORM_TYPES, st.sampled_from(["realtime", "chat-completions", "agents", "openai-media"]))
@example("x=\udcff&model=a", PAIRS, "realtime")
@example("model=\udcff", PAIRS, "realtime")
def test_the_models_of_forms_are_found_and_renamed_alike(
    lua: Library, form: str, content_type: str, name: str
) -> None:
    api = API_BY_NAME[name]
    raw, rule = (
        form.encode("utf-8", "surrogateescape"),
        make_rule(models={"map": {"a": "b"}, "default": "é-c"}),
    )
    assert rule.models
    try:
        found = read_form(raw, content_type, api)
    except BodyError:
        with pytest.raises(Refused):
            lua.call("forms.scan", raw, content_type, api_data(api))
        return
    places, names = lua.call("forms.scan", raw, content_type, api_data(api))
    models = found.models if found else ()
    assert [name.decode("utf-8", "surrogateescape") for name in names.values()] == list(models)
    renamed = found.renamed(rule.models.sent_for) if found else raw
    data = data_of(rule)["models"]
    assert lua.call("models.renamed", raw, places, data) == renamed


MANY_FIELDS = [
    (b"&" * MAX_FIELDS, PAIRS),
    (b"model=" + b"%61" * MAX_NAME_BYTES + b"a", PAIRS),
    (b"\r\n--bx" * (MAX_FIELDS + 1), PARTS),
    (FIELD % b"model" + b"a" * (MAX_NAME_BYTES + 1) + b"\r\n--b--", PARTS),
    ((FIELD % b"session" + b'{"a":"%b"}' % (b"a" * 300_000) + b"\r\n") * 4 + b"--b--", PARTS),
]


@table(("raw", "content_type"), MANY_FIELDS)
def test_a_form_of_many_or_large_fields_is_refused_alike(lua: Library, raw: bytes, content_type: str) -> None:
    with pytest.raises(BodyError) as refused:
        read_form(raw, content_type, REALTIME)
    with pytest.raises(Refused, match=str(refused.value)):
        lua.call("forms.scan", raw, content_type, api_data(REALTIME))


@table(("raw", "content_type"), [
    (b"model=a&" + b"&" * (MAX_FIELDS - 2), PAIRS),
    (b"[" * MAX_FIELD_NAME + b"=a&model=a", PAIRS),
    (b"--b\r\n" + b"\r\n--bx" * (MAX_FIELDS - 2) + b"\r\n" + FIELD % b"model" + b"a\r\n--b--", PARTS),
])  # fmt: skip
def test_a_form_within_the_bounds_names_its_model_alike(lua: Library, raw: bytes, content_type: str) -> None:
    found = read_form(raw, content_type, REALTIME)
    assert found
    _, names = lua.call("forms.scan", raw, content_type, api_data(REALTIME))
    assert [name.decode() for name in names.values()] == list(found.models)
