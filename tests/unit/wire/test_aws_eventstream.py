"""AWS's binary event streams."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mitm_gateway.wire.aws_eventstream import Frame, event, frames
from support.aws import chunk, frame


def test_frames_are_parsed() -> None:
    data = frame(b"one", event_type="chunk", message_type="event") + frame(b"")
    assert frames(data) == (
        [Frame({":event-type": "chunk", ":message-type": "event"}, b"one"), Frame({}, b"")],
        0,
    )


def test_headers_that_are_not_text_are_ignored() -> None:
    values = b"".join(
        bytes([1, 97 + kind, kind]) + bytes(length)
        for kind, length in {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}.items()
    )
    head = values + b"\x01z\x06\x00\x02ab" + b"\x01t\x07\x00\x02ok"
    whole = (16 + len(head)).to_bytes(4) + len(head).to_bytes(4) + bytes(4) + head + bytes(4)
    assert frames(whole) == ([Frame({"t": "ok"}, b"")], 0)


def test_a_cut_off_frame_is_counted() -> None:
    data = frame(b"one")
    assert frames(data + data[:-1]) == ([Frame({}, b"one")], len(data) - 1)


def test_the_models_event_is_unpacked() -> None:
    [found], _ = frames(chunk({"type": "ping"}))
    assert event(found) == {"type": "ping"}


def test_an_exception_is_an_error_event() -> None:
    [found], _ = frames(frame(b'{"message": "no"}', message_type="exception", exception_type="validation"))
    assert event(found) == {"type": "error", "error": {"type": "validation", "message": "no"}}


def test_a_payload_that_is_not_json_is_an_error() -> None:
    with pytest.raises(ValueError, match="Expecting value"):
        event(Frame({}, b"no"))


@given(st.binary(max_size=60), st.integers(0, 60))
def test_no_bytes_make_the_reader_raise_or_loop(rubbish: bytes, at: int) -> None:
    data = frame(b"payload", event_type="chunk")
    for each in (rubbish, data[:at] + rubbish + data[at:], data + rubbish):
        found, rest = frames(each)
        assert rest <= len(each)
        assert len(found) <= len(each) // 16
