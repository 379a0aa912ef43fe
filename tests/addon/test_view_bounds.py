"""mitmproxy's own views and prints of hostile bodies: bounded work, and an end that says what is left out."""

import gzip
import json
import zlib
from collections.abc import Callable
from io import StringIO
from typing import Any

import brotli
import pytest
from mitmproxy import contentviews
from mitmproxy.addons.dumper import Dumper
from mitmproxy.net import encoding
from mitmproxy.test import taddons, tflow

from mitm_gateway.llm.conversation import DEFAULT_LIMIT
from mitm_gateway.mitm.views import register
from mitm_gateway.patches.safety import views
from support.patched import applied
from support.table import table

HAS_COLOURS = hasattr(contentviews, "prettify_message")
LIMIT = 1 << 20
PACKED: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": lambda data: brotli.compress(data, quality=1),
}


@pytest.mark.parametrize("coding", PACKED)
def test_a_body_is_unpacked_up_to_the_bound(coding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "MAX_UNPACKED_BYTES", LIMIT)
    with applied("view-bounds"):
        assert len(encoding.decode(PACKED[coding](b"a" * LIMIT), coding)) == LIMIT
        with pytest.raises(ValueError, match="TooLarge"):
            encoding.decode(PACKED[coding](b"a" * (LIMIT + 1)), coding)


def test_damaged_bodies_are_read_as_mitmproxy_reads_them() -> None:
    for cut in (gzip.compress(b"text" * 100)[:-3], b"no gzip"):
        found: list[object] = []
        for patches in ((), ("view-bounds",)):
            with applied(*patches):
                try:
                    found.append(encoding.decode(cut, "gzip"))
                except ValueError as fault:
                    found.append(type(fault))
        assert found[0] == found[1]


def printed(body: bytes, content_type: str, path: str = "/") -> str:
    """Everything that mitmdump prints about a response with `flow_detail=4`."""
    flow = tflow.tflow(resp=True)
    assert flow.response is not None
    flow.request.path, flow.request.host = path, "api.anthropic.com"
    flow.request.raw_content = None
    flow.response.headers["content-type"], flow.response.raw_content = content_type, body
    dumper = Dumper(out := StringIO())
    with taddons.context(dumper) as context:
        context.options.flow_detail = 4
        dumper.echo_flow(flow)
    return out.getvalue()


ELEMENTS = {"application/json": b"[", "text/html": b"<a>", "text/plain": b"- ", "application/octet-stream": b"\0",
            "application/x-www-form-urlencoded": b"a=b&", "text/xml": b"<a b='c'/>"}  # fmt: skip


@pytest.mark.parametrize("content_type", ELEMENTS)
def test_the_beginning_of_a_large_body_is_printed(
    content_type: str, caplog: pytest.LogCaptureFixture
) -> None:
    body = ELEMENTS[content_type] * (2 << 20)
    with applied("view-bounds"):
        shown = printed(body, content_type)
    assert len(shown) < 8 * views.MAX_SHOWN_CHARACTERS
    assert "… " in shown
    assert not caplog.records


@pytest.mark.skipif(not HAS_COLOURS, reason="mitmproxy 11 has another interface")
def test_a_view_is_chosen_by_the_beginning_of_a_body(monkeypatch: pytest.MonkeyPatch) -> None:
    graphql: Any = vars(contentviews)["graphql"]
    judged: list[int] = []

    def render_priority(self: Any, data: bytes, metadata: Any) -> float:
        judged.append(len(data))
        return 0

    monkeypatch.setattr(type(graphql), "render_priority", render_priority)
    with applied("view-bounds"):
        printed(b"[" + b"[]," * (1 << 20) + b"[]]", "application/json")
    assert judged
    assert max(judged) <= views.MAX_SHOWN_BYTES


@table("count", [10, 3000])
def test_a_small_body_is_printed_as_mitmproxy_prints_it(count: int) -> None:
    body = b'{"a": [' + b"1, " * count + b"2]}"
    stock = printed(body, "application/json")
    with applied("view-bounds"):
        assert printed(body, "application/json") == stock


def test_a_conversation_is_read_whole_by_its_own_view() -> None:
    texts = [
        {"type": "text", "text": "word " * views.MAX_SHOWN_JSON_BYTES},
        {"type": "text", "text": "the end"},
    ]
    body = json.dumps({"type": "message", "role": "assistant", "content": texts})
    remove = register(lambda: DEFAULT_LIMIT)
    try:
        with applied("view-bounds"):
            shown = printed(body.encode(), "application/json", "/v1/messages")
    finally:
        remove()
    assert "the end" in shown


@pytest.mark.skipif(not HAS_COLOURS, reason="mitmproxy 11 colours no bodies this way")
def test_a_text_is_coloured_in_pieces_of_whole_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    import mitmproxy_rs

    colours: Any = vars(mitmproxy_rs)["syntax_highlight"]
    pieces: list[str] = []

    def highlight(text: str, language: str) -> list[tuple[str, str]]:
        pieces.append(text)
        return [("name", text)]

    monkeypatch.setattr(colours, "highlight", highlight)
    text = "- " * 20_000 + "\n" + "a: 1\n" * 5_000
    with applied("view-bounds"):
        assert "".join(part for _, part in colours.highlight(text, "yaml")) == text
        assert max(map(len, pieces)) <= views.PIECE
        assert all(piece.endswith("\n") for piece in pieces[40:])
        assert colours.highlight(text * 20, "yaml") == [("", text * 20)]
