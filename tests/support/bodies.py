"""Bodies read in both ways: checked by simdjson, and walked."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from mitm_gateway.exchange import json_body
from mitm_gateway.exchange.body_error import BodyError
from mitm_gateway.exchange.json_body import scan
from mitm_gateway.exchange.json_edits import edit

Told = tuple[str | None, frozenset[str], bytes | str] | str
TOO_DEEP = "the body is nested too deep"
# Texts that are not JSON, or nearly not, and bodies whose model is hard to find.
NASTY = [
    b'{"a":1,"a":2}', b'{"a":"\xff"}', b'{"a":"\\ud800"}', b'{"a":"\\udc00x"}', b'{"a":"\\ud800\\u0041"}', b'{"a":NaN}',
    b'{"a":01}', b'{"a":1e999}', b'{"a":' + b"9" * 5000 + b"}", b'{"a":' + b"9" * 30 + b"}",
    b'{"a":1.' + b"9" * 5000 + b"}", b'{"a":' + b"[" * 250 + b"]" * 250 + b"}", b'{"a":' + b"[" * 3000 + b"]" * 3000 + b"}",
    b'{"a":"\x01"}', b"\xef\xbb\xbf{}", b"\xef\xbb\xbf\xef\xbb\xbf{}", b"{} x", b"{}{}", b'{"a":"\xed\xa0\x80"}',
    b'{"a":-}', b'{"a":1.}', b'{"a":.5}', b'{"a":"\\x"}', b'{"a":1,}', b"{'a':1}", b'{"a":tru}', b'{"a":"\x7f"}', b"\x0b{}",
    b'{"a":Infinity}', b'{"a":-Infinity}', b'{"a":1}\x00', b'{"a" :1}\n ', b"", b" ", b"[1]", b'"x"', b'"model"', b"7",
    b"null", b'{"a":"\xf4\x90\x80\x80"}', b'{"a":"\xc0\x80"}', b'{"a":"\x00"}', b'{"a":"\\u0000"}', b'{"a\\u0000b":1}',
    b'{"":1}', b'{"mod\\u0065l":"x","model":"y"}', b'{"a":1 "b":2}', b'{"a"}', b'{"a":}', b"{1:2}", b'{"a":"x\ny"}',
    b'{"a":-0}', b'{"a":-01}', b'{"a":1e}', b'{"a":1E+}', b'{"a":0x1}', b'{"a":\xc2\xa01}', b'{"a":"\\uD83D\\uDE00"}',
    b'{"a":"\\u12"}', b"nul", b'{"a":[1,]}', b'{"a":[,1]}', b"{,}", b'{"a":1,,"b":2}', b"\x1e{}", b'{"a":1}\xef\xbb\xbf',
    b'{"\xed\xa0\x80":1}', b'{"a":+1}', b'{"a":1_0}', b"/*c*/{}", b'{"a":"\\/"}', b'{"a":\ttrue}', b'{"a":\x0ctrue}',
    b'{"model":{"id":"m","x":1.0}}', b'{"model":{"i\\u0064":"m"}}', b'{"model":{"id":null}}',
    b'{"model":{"id":"a","id":"b"}}', b'{"model":null,"model":"m"}', b'{"model":null}', b'{"model":{}}',
    b'{"model":["m"]}', b'{"model":7}', b'{"model":true}', b'{"model":""}',
    b'{"model":"m","model":"m"}', b'{"model\\u0000":"m"}', b'{"model\\u0000":"m","model":"n"}',
    b'{"Model":"m","model ":"n"}', b'{"a":"x\\"model","\\u006dodel":"m"}', b'{"x\\"model":"a","\\u006dodel":"m"}',
    b'{"a":{"model":"m"},"model":"\\u006d"}', b'{"a":"\\"model\\":\\"m\\"","model":"m"}',
    b'{"a":["model","m"],"model":"m"}',
    b'{"a":"model","model":"m"}', b'{"a":{"model":"m"},"mode\\u006C":"m"}', b'{"a":{"model":"m"}}',
    b'{"a":"\\\\","model":"m\\\\"}', b'{"anthropic_beta":["a"],"anthropic_beta":[]}', b'{"anthropic_bet\\u0061":["a"]}',
]  # fmt: skip


def to(name: str) -> Callable[[str], str]:
    """Return a map of every model to this name."""
    return lambda _: name


@contextmanager
def walked() -> Iterator[None]:
    """As if simdjson were not installed."""
    with patch.object(json_body, "simdjson", None):
        yield


def told(raw: bytes, **edits: Any) -> Told:
    """Return the results of scan and edit, or the reason of a refusal."""
    try:
        found = scan(raw)
    except BodyError as fault:
        return _reason(fault)
    try:
        return found.model, found.keys, edit(found, **edits)
    except BodyError as fault:
        return found.model, found.keys, _reason(fault)


def assert_same_both_ways(raw: bytes, **edits: Any) -> None:
    """Assert that the two ways differ only in the depth that they accept."""
    quick = told(raw, **edits)
    with walked():
        slow = told(raw, **edits)
    assert quick == slow or TOO_DEEP in (slow, slow[-1], quick[-1])


def _reason(fault: BodyError) -> str:
    assert fault.__cause__ is None
    assert fault.__context__ is None or fault.__suppress_context__
    return str(fault)


# Items of an array that need far more memory than their text.
OVERGROWN = {
    "empty arrays": b"[]," * 200_000,
    "empty objects": b"{}," * 200_000,
    "nested arrays": b"[[0]]," * 100_000,
    "arrays behind a string with brackets": b'"[[\\\\\\"]]",' + b"[]," * 200_000,
    "short strings": b'"ab",' * 120_000,
    "keys": b"{" + b",".join(b'"%x":0' % number for number in range(120_000)) + b"},",
}


def overgrown(items: bytes) -> bytes:
    """Return a request body with these items."""
    return b'{"model":"m","a":{"b":[' + items + b"0]}}"
