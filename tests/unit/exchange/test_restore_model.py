"""The client's model name, put back while the answer streams."""

import json

from hypothesis import given
from hypothesis import strategies as st

from mitm_gateway.exchange.restore_model import JsonRestorer, SseRestorer, always
from support.strategies import JSON_PIECES, STREAM_PIECES
from support.table import table

NAME = 'claude-"é'
SHOWN = json.dumps(NAME, ensure_ascii=False).encode()


def restored(restorer: JsonRestorer | SseRestorer, *chunks: bytes) -> bytes:
    return b"".join(restorer.feed(chunk) for chunk in chunks) + restorer.flush()


def sse(*chunks: bytes) -> bytes:
    return restored(SseRestorer(always(NAME)), *chunks)


def as_json(*chunks: bytes) -> bytes:
    return restored(JsonRestorer(always(NAME)), *chunks)


@table(
    ("before", "after"),
    [
        (b'{"model":"gw"}', b'{"model":%s}'),
        (b' {"a":[{"model":"x"}], "model" :\n"gw" ,"b":"\\"model\\":"}',
         b' {"a":[{"model":"x"}], "model" :\n%s ,"b":"\\"model\\":"}'),
        (b'{"\\u006dodel":"gw"}', b'{"\\u006dodel":%s}'),
        (b'{"content":[{"type":"tool_use","input":{"model":"x"}}],"model":"g\\"w"}',
         b'{"content":[{"type":"tool_use","input":{"model":"x"}}],"model":%s}'),
    ],
)  # fmt: skip
def test_the_top_level_model_of_an_answer_is_edited(before: bytes, after: bytes) -> None:
    assert as_json(before) == after % SHOWN


@table(
    "body",
    [
        b'{"message":{"model":"x"}}', b'{"model":null}', b'{"model":{"model":"x"}}', b'["model","x"]',
        b'"model"', b'{"a":"model","b":"x"}', b'{"models":"x","mode":"y"}', b"nonsense \" { : , model", b"",
        b'x{"model":"y"}', b'nonsense {"model":"y"}', b'{"a" "model":"y"}', b'{"model"::"y"}',
        b'{"model":1"y"}', b'{"model":x"y"}', b'{"model"x:"y"}', b'{"model" "y"}', b'{model:"model","a":"y"}',
    ],
)  # fmt: skip
def test_everything_else_in_an_answer_stays(body: bytes) -> None:
    assert as_json(body) == body
    assert as_json(*(body[place : place + 1] for place in range(len(body)))) == body


@table("between", [b"\n", b"\r\n", b""])
def test_every_document_of_several_in_a_row_is_edited(between: bytes) -> None:
    before = between.join(
        [b'{"model":"gw","done":false}', b'{"x":{"model":"y"}}', b'{"x":1,"model":"gw"}', b""]
    )
    after = before.replace(b'"gw"', SHOWN)
    assert as_json(before) == after
    for cut in range(len(before)):
        assert as_json(before[:cut], before[cut:]) == after, cut


@table("end", [b"\n", b"\r\n", b"\r"])
@table(
    ("line", "edited"),
    [
        (b'data: {"type":"message_start","message":{"model":"gw","x":{"model":"y"}}}',
         b'data: {"type":"message_start","message":{"model":%s,"x":{"model":"y"}}}'),
        (b'data:{"model":"gw","choices":[{"delta":{"model":"x"}}]}',
         b'data:{"model":%s,"choices":[{"delta":{"model":"x"}}]}'),
        (b'data: {"response":{"output":[{"model":"x"}],"model":"gw"}}',
         b'data: {"response":{"output":[{"model":"x"}],"model":%s}}'),
        (b'data: {"delta":{"partial_json":"\\"model\\":\\"x\\""}}', None),
        (b"data: [DONE]", None),
        (b'event: x"model":"y"', None),
        (b': {"model":"y"}', None),
        (b'id: {"model":"y"}', None),
    ],
)  # fmt: skip
def test_the_model_in_each_event_of_a_stream_is_edited(line: bytes, edited: bytes | None, end: bytes) -> None:
    expected = line if edited is None else edited % SHOWN
    assert sse(line + end + end) == expected + end + end


def test_data_over_several_lines_is_one_document() -> None:
    before = b'data: {"message":\ndata: {"id":1,\ndata:"model":"gw"}}\n\n'
    assert sse(before) == before.replace(b'"gw"', SHOWN)


def test_a_name_on_a_line_after_its_key_is_edited_wherever_the_stream_is_cut() -> None:
    before = b'event: x\ndata: {"message":{"model":\ndata: "gw"}}\n\n'
    for cut in range(len(before)):
        assert sse(before[:cut], before[cut:]) == before.replace(b'"gw"', SHOWN), cut


def test_broken_data_passes_and_the_next_event_is_edited() -> None:
    before = b'data: {"model":"cut\n\ndata: {"a":}}}]{"model":"x"}\n\ndata: {"model":"gw"}\n\n'
    assert sse(before) == before.replace(b'"gw"', SHOWN)


def test_a_byte_order_mark_does_not_hide_the_first_field() -> None:
    assert sse(b'\xef\xbb\xbfdata: {"model":"gw"}\n\n') == b'\xef\xbb\xbfdata: {"model":' + SHOWN + b"}\n\n"


def test_only_the_edited_string_is_held_back() -> None:
    restorer = SseRestorer(always(NAME))
    assert restorer.feed(b'data: {"type":"x","message":{"mod') == b'data: {"type":"x","message":{"mod'
    assert restorer.feed(b'el":"g') == b'el":'
    assert restorer.feed(b"w") == b""
    assert restorer.feed(b'","rest') == SHOWN + b',"rest'


def test_held_bytes_are_sent_at_the_end_of_a_cut_stream() -> None:
    assert sse(b'data: {"model":"g') == b'data: {"model":"g'
    assert as_json(b'{"model":"g') == b'{"model":"g'


def test_a_very_long_name_passes_as_it_is() -> None:
    long = b'{"model":"' + b"x" * 100_000 + b'","a":1}'
    assert as_json(*(long[place : place + 1000] for place in range(0, len(long), 1000))) == long
    assert as_json(long) == long


def test_a_huge_event_passes_in_pieces() -> None:
    restorer = SseRestorer(always(NAME))
    start = b'data: {"delta":{"text":"'
    assert restorer.feed(start) == start
    piece = b"a\\n" * 20_000
    for _ in range(50):
        assert restorer.feed(piece) == piece
    assert restorer.feed(b'"},"model":"gw"}\n\n') == b'"},"model":' + SHOWN + b"}\n\n"


@given(st.lists(STREAM_PIECES, max_size=12).map(b"".join), st.data())
def test_the_bytes_do_not_depend_on_the_chunks(stream: bytes, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(0, len(stream)), max_size=8)))
    chunks = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    byte_by_byte = [stream[place : place + 1] for place in range(len(stream))]
    assert sse(*chunks) == sse(stream) == sse(*byte_by_byte)
    assert as_json(*chunks) == as_json(stream) == as_json(*byte_by_byte)


@table(
    "stream",
    [
        b'data:"","":1,{"a":1,"model":"gw"}\n\n',
        b'data:{"","model":\f"gw"}\n\n',
        b'data:{"a""b":1,x"model":"gw"}\n\n',
    ],
)
def test_broken_json_is_read_alike_wherever_the_stream_is_cut(stream: bytes) -> None:
    byte_by_byte = [stream[place : place + 1] for place in range(len(stream))]
    assert sse(*byte_by_byte) == sse(stream) == stream


@given(st.binary(max_size=200))
def test_what_names_no_model_passes_unchanged(stream: bytes) -> None:
    if b"model" not in stream:
        assert sse(stream) == stream
        assert as_json(stream) == stream


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text('ab"\\\né\ud800', max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["model", "message", "response", "a"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(
    st.dictionaries(st.sampled_from(["model", "message", "response", "a"]), JSON, max_size=4), st.booleans()
)
def test_the_edit_is_the_one_on_parsed_data(document: dict[str, object], escaped: bool) -> None:
    text = json.dumps(document, ensure_ascii=escaped).encode("utf-8", "surrogatepass")
    expected = dict(document)
    if isinstance(expected.get("model"), str):
        expected["model"] = NAME
    assert json.loads(as_json(text).decode("utf-8", "surrogatepass")) == expected
    for parent in ("message", "response"):
        inner = expected.get(parent)
        if isinstance(inner, dict) and isinstance(inner.get("model"), str):
            expected[parent] = {**inner, "model": NAME}
    edited = sse(b"data: " + text + b"\n\n").removeprefix(b"data: ")
    assert json.loads(edited.decode("utf-8", "surrogatepass")) == expected


@given(st.lists(st.sampled_from(JSON_PIECES), max_size=12), st.data())
def test_a_response_is_edited_alike_at_once_and_byte_by_byte(
    pieces: list[bytes], data: st.DataObject
) -> None:
    body = b'{"id":"m",' * data.draw(st.integers(0, 1)) + b"".join(pieces)
    bytewise = as_json(*(body[place : place + 1] for place in range(len(body))))
    cut = data.draw(st.integers(0, len(body)))
    assert as_json(body) == bytewise
    assert as_json(body[:cut], body[cut:]) == bytewise


@table("length", [4094, 4095, 5000])
def test_a_long_name_stays_in_chunks_of_any_size(length: int) -> None:
    body = b'{"id":"m","model":"%s","x":1}' % (b"n" * length)
    assert as_json(body) == as_json(*(body[place : place + 1] for place in range(len(body))))
