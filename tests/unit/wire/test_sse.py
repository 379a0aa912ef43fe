"""Server-sent events from bytes."""

from hypothesis import given
from hypothesis import strategies as st

from mitm_gateway.wire.sse import EventReader
from support.table import table


def events(*chunks: bytes, limit: int = 1000) -> list[bytes]:
    reader = EventReader(limit)
    return [event for chunk in chunks for event in reader.feed(chunk)] + reader.finish()


@table("end", [b"\n", b"\r\n", b"\r"])
def test_the_data_of_each_event_is_returned(end: bytes) -> None:
    stream = end.join([b"event: a", b"data: 1", b"data:2", b": comment", b"id: 5", b"", b"data", b"", b""])
    assert events(stream) == [b"1\n2", b""]


def test_an_event_without_data_is_ignored() -> None:
    assert events(b"event: a\n\ndata: 1\n\n") == [b"1"]


def test_a_byte_order_mark_is_skipped() -> None:
    assert events(b"\xef\xbb\xbfdata: 1\n\n") == [b"1"]


def test_the_last_event_of_a_stream_that_is_cut_off_is_returned() -> None:
    assert events(b"data: 1\n\ndata: 2") == [b"1", b"2"]


def test_data_over_the_limit_is_cut() -> None:
    assert events(b"data: " + b"x" * 5000 + b"\n\n", limit=100) == [b"x" * 100]
    lines = b"data: abc\n" * 100 + b"\n"
    (event,) = events(lines, limit=100)
    assert len(event) <= 104


LINES = st.sampled_from(
    [b"data: 1", b"data", b"event: e", b": c", b"", b"x", b"data:  y:z", b"\xff", b"\xef\xbb\xbf"]
)
ENDS = st.sampled_from([b"\n", b"\r", b"\r\n"])


@given(st.lists(st.tuples(LINES, ENDS), max_size=12), st.data())
def test_the_events_do_not_depend_on_the_chunks(
    lines: list[tuple[bytes, bytes]], data: st.DataObject
) -> None:
    stream = b"".join(line + end for line, end in lines)
    cuts = sorted(data.draw(st.sets(st.integers(0, len(stream)), max_size=6)))
    chunks = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert events(*chunks) == events(stream)
    assert events(*(stream[place : place + 1] for place in range(len(stream)))) == events(stream)
