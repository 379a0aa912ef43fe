"""Models in forms with files."""

import pytest

from mitm_gateway.exchange.body_error import BodyError
from mitm_gateway.exchange.form_body import read_form
from mitm_gateway.llm.apis import OTHER, Api
from support.endpoints import API_BY_NAME
from support.table import table

REALTIME, CHAT = API_BY_NAME["realtime"], API_BY_NAME["chat-completions"]

TYPE = "multipart/form-data; boundary=b"
FIELD = b'\r\nContent-Disposition: form-data; name="model"\r\n\r\n'


def renamed(raw: bytes, content_type: str = TYPE, api: Api = OTHER) -> bytes:
    found = read_form(raw, content_type, api)
    return found.renamed(str.upper) if found else raw


@table(
    ("raw", "content_type"),
    [
        (b"--b" + FIELD + b"gpt\r\n--b--\r\n", TYPE),
        (b"a preamble\r\n--b" + FIELD + b"gpt\r\n--b--", 'Multipart/Form-Data; charset=x; Boundary="b"'),
        (b"--b\r\n\r\nx\r\n--b" + FIELD + b"gpt\r\n--b\r\n", TYPE),
        (b"--b \t" + FIELD + b"gpt\r\n--b\t \r\n\r\nx\r\n--b--", TYPE),
        (b"--b" + FIELD.replace(b"; name", b'; x="; filename=y"; name') + b"gpt\r\n--b--", TYPE),
        (b"a=b%26&model=gpt&x=%7e", "application/x-www-form-urlencoded"),
    ],
)
def test_the_value_of_the_field_is_replaced_and_no_other_byte(raw: bytes, content_type: str) -> None:
    assert renamed(raw, content_type) == raw.replace(b"gpt", b"GPT")


@table(
    ("api", "name", "value"),
    [
        (
            REALTIME,
            b"session",
            b' {"x":"\xc3\xa9","model":"gpt","audio":{"input":{"transcription":{"model":"gpt"}}}}',
        ),
        (REALTIME, b"session[model]", b"gpt"),
        (CHAT, b"models[]", b"gpt"),
        (CHAT, b"models", b'["gpt", "gpt"]'),
        (CHAT, b"models", b"gpt"),
        (CHAT, b"fallbacks[0][model]", b"gpt"),
    ],
)
def test_every_place_of_an_api_is_found_in_fields(api: Api, name: bytes, value: bytes) -> None:
    raw = b"--b" + FIELD.replace(b"model", name) + value + b"\r\n--b--"
    assert renamed(raw, api=api) == raw.replace(b"gpt", b"GPT")


@table(
    ("raw", "content_type"),
    [
        (b"", TYPE),
        (b"--b--\r\n", TYPE),
        (b"--b" + FIELD + b"gpt\r\n--b--", "multipart/form-data"),
        (b"--b" + FIELD + b"gpt\r\n--b--", "multipart/mixed; boundary=b"),
        (b"--b" + FIELD.replace(b"model", b"models") + b"gpt\r\n--b--", TYPE),
        (b"--b" + FIELD.replace(b'"model"', b'"model"; filename="x"') + b"gpt\r\n--b--", TYPE),
        (b"--b\r\nx: " + b"x" * 9000 + FIELD + b"gpt\r\n--b--", TYPE),
    ],
)
def test_a_form_without_the_field_is_the_same_object(raw: bytes, content_type: str) -> None:
    assert renamed(raw, content_type) is raw


@table(
    "raw",
    [
        b"--b" + FIELD + b"gpt",
        b"--b" + FIELD + b"gpt\r\n--bc\r\n",
        b"--b" + FIELD + b"gpt\r\n--b" + FIELD + b"gpt",
        (b"--b" + FIELD + b"gpt\r\n--b--").replace(b"\r\n", b"\n"),
        (b"a preamble\r\n--b" + FIELD + b"gpt\r\n--b--").replace(b"\r\n", b"\n"),
    ],
)
def test_a_form_without_an_end_is_refused(raw: bytes) -> None:
    with pytest.raises(BodyError, match="does not end"):
        renamed(raw)


@table("value", [b"x" * 9000, b"\xff"])
def test_a_value_that_is_no_name_is_refused(value: bytes) -> None:
    with pytest.raises(BodyError):
        renamed(b"--b" + FIELD + value + b"\r\n--b--")


def test_more_models_than_any_client_names_are_refused() -> None:
    with pytest.raises(BodyError):
        renamed((b"--b" + FIELD + b"m\r\n") * 1001 + b"--b--")
