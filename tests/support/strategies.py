"""Hypothesis strategies that tests of the addon and tests of its Lua twins share."""

from hypothesis import strategies as st

# Members and values that have the model's name in every place, as text, so that they can repeat and be broken.
KEY = st.sampled_from(
    ['"model"', '"mod\\u0065l"', '"\\u006Dodel"', '"a"', '"x\\"model"', '"anthropic_beta"', '"é"', '""']
)
SCALAR = st.sampled_from(
    ['"m"', '"model"', '"\\u006d"', '"\\"model\\":"', '"x\\"model"', '"\\ud800"', "1E400", "-0", "1.50", "null",
     "[]", "[1,]", '["a"]', "{}", "9" * 25, "tru", '"é\\\\"', '"anthropic_beta"']
)  # fmt: skip
BLANK = st.sampled_from(["", "", "", " ", "\n\t", "\x0b", "\ufeff"])


def member(value: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.tuples(BLANK, KEY, BLANK, st.just(":"), BLANK, value, BLANK).map("".join)


def inside(value: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    objects = st.lists(member(value), max_size=3).map(lambda members: "{" + ",".join(members) + "}")
    return objects | st.lists(value, max_size=3).map(lambda values: "[" + ",".join(values) + "]")


JSONISH = st.tuples(
    BLANK, st.lists(member(st.recursive(SCALAR, inside, max_leaves=6)), max_size=5), BLANK
).map(lambda parts: (parts[0] + "{" + ",".join(parts[1]) + "}" + parts[2]).encode())

# Parts of streams and of JSON responses that have a model in every place.
STREAM_PIECES = st.sampled_from(
    [b'data: {"model":"gw"}', b'data: {"message":{"model":"g\\\\w"}}', b"\n", b"\r", b"\r\n", b"\n\n",
     b": c", b'data: {"a":"\\u006d', b'\\"model\\":"x"}', b'{"model"', b':"y"', b",", b"}", b"]", b'"', b"\\", b"data",
     b'data: {"model":', b'data: "gw"}',
     b'data: {"\\u006dodel":"gw","response":{"model":"gw"}}', b"\xff", b"event: message_start\n"]
)  # fmt: skip

JSON_PIECES = (
    b'{', b'{"model":"gw"', b'"model":"gw"', b'"model"', b':', b',', b'"gw"', b'"a":"x\\"model\\""', b'"a":1',
    b'"b":[1,{"model":"y"}]',
    b'"message":{', b'}', b'[', b']', b' ', b"\n", b"\f", b'"\\u006dodel":"y"', b'"mod', b'el":"y"', b'"', b"\\", b"true",
    b'"":8,', b"x", b"\xff",
)  # fmt: skip

# Pieces that break a JSON string, or nearly do.
ODD_BYTES = [
    b'"', b"\\", b"\\x", b"\\u12", b"\\u12g4", b"\\u123g", b"\x1f", b"\x00", b"\x7f", b"\x80", b"\xbf", b"\xc0\x80",
    b"\xc2", b"\xc2\x41", b"\xe0\x9f\xbf", b"\xe0\xa0\x80", b"\xe2\x82", b"\xed\x9f\xbf", b"\xed\xa0\x80",
    b"\xf0\x8f\xbf\xbf", b"\xf0\x90\x80\x80", b"\xf1\x80\x80", b"\xf4\x8f\xbf\xbf", b"\xf4\x90\x80\x80",
    b"\xf5\x80\x80\x80", b"\xff", b"\\/", b"\\\\", b'","b":"',
]  # fmt: skip
