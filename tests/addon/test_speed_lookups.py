"""Faster lookups return the same values as mitmproxy's."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from mitmproxy import http
from mitmproxy.proxy.layers.http._hooks import HttpRequestHook
from mitmproxy.test import taddons, tflow

from support.patched import applied
from support.table import table

Headers: Any = http.Headers  # also given what it does not take

NAMES = [b"Host", b"host", b"x-a", b"X-A", b"\xffx", "x-a", "X-a", "HOST", "absent", "\udcffx"]
FIELDS = st.lists(
    st.tuples(st.sampled_from([name for name in NAMES if isinstance(name, bytes)]), st.binary(max_size=4)),
    max_size=5,
)


def looked_up(fields: Any, name: Any) -> tuple[object, ...]:
    headers = Headers(fields)
    try:
        item = headers[name]
    except KeyError as fault:
        item = fault.args
    return (
        headers.fields, headers.get_all(name), headers.get(name), headers.get(name, "default"),
        headers.get(name, default=7), name in headers, item, list(headers), len(headers),
    )  # fmt: skip


@given(fields=FIELDS, name=st.sampled_from(NAMES), as_lists=st.booleans())
def test_headers_behave_as_mitmproxys(
    fields: list[tuple[bytes, bytes]], name: str | bytes, as_lists: bool
) -> None:
    given_fields: Any = [list(each) for each in fields] if as_lists else fields
    expected = looked_up(given_fields, name)
    with taddons.context(), applied("plain-headers"):
        assert looked_up(given_fields, name) == expected


@table(
    "make",
    [
        lambda: Headers([("text", b"x")]),
        lambda: Headers([(b"x", "text")]),
        lambda: Headers([(b"x",)]),
        lambda: 7 in Headers(),
        lambda: Headers().get(None),
        lambda: Headers(host="h", content_type="t").fields,
        lambda: http.ResponseData(b"HTTP/1.1", Headers(), "text", None, 0.0, None, 200, b"OK"),  # type: ignore[arg-type]
        lambda: http.ResponseData(b"HTTP/1.1", Headers(), None, None, "now", None, 200, b"OK"),  # type: ignore[arg-type]
        lambda: http.ResponseData(b"HTTP/1.1", Headers(), b"", None, 0, None, 200, b"OK").content,
        lambda: HttpRequestHook(tflow.tflow()).args()[0].type,
    ],
)
def test_wrong_types_are_reported_in_the_same_words(make: Any) -> None:
    def result() -> object:
        try:
            return make()
        except Exception as fault:
            return type(fault), str(fault)

    expected = result()
    with taddons.context(), applied("plain-headers", "plain-checks"):
        assert result() == expected
