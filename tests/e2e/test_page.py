"""The HTML file of a recording in a real browser, with hostile content."""

import json
import shutil
from pathlib import Path

import pytest

from e2e.test_browser import drive, find_playwright
from mitm_gateway.cli import main
from support.recordings import talked, turn, write

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(not find_playwright().exists(), reason="playwright-core is not installed"),
    pytest.mark.skipif(
        not shutil.which("chromium") or not shutil.which("node"), reason="no chromium or no node"
    ),
]

HOSTILE = (
    "<script>window.hit = 1</script>",
    '<img src=x onerror="window.hit = 2">',
    "</pre></details><svg onload='window.hit = 3'><iframe src=https://evil.example></iframe>",
    '"><style>@import "https://evil.example/a.css"</style>',
    "<!--", "-->", "]]>", "</script>", "</title>", "&lt;b&gt;",
    "<a href='javascript:window.hit = 4'>here</a>",
    "\u202egnp.exe \u2066 \u200f right to left",
    "\x1b[2J\x1b]0;title\x07 a terminal's escapes \x00",
    "\ud800 half a character",
    "w" * 5000,
)  # fmt: skip


def test_a_page_shows_hostile_content_as_text(tmp_path: Path) -> None:
    every = "\n".join(HOSTILE)
    tool = {
        "name": HOSTILE[0],
        "description": HOSTILE[1],
        "input_schema": {"properties": {HOSTILE[2]: {"type": HOSTILE[0]}}},
    }
    asked = talked(
        turn(every, every, every, model=HOSTILE[1], tools=[tool], metadata={"user_id": every}),
        json.dumps({"content": [{"type": "text", "text": every}], "model": HOSTILE[0]}).encode(),
        headers=[("x-claude-code-session-id", HOSTILE[1])],
        kind="text/html",
    )
    path = "https://api.anthropic.com/v1/messages?q=<script>window.hit=5</script>"
    other = talked(
        b"<script>window.hit = 6</script>", b"<h1>pear</h1>", url=path, kind="text/html", status=500
    )
    recording = write(
        tmp_path / "<img src=x onerror='window.hit = 7'>.mitm", [asked, talked(turn("pear")), other]
    )
    page = tmp_path / "out.html"
    assert main(["flows", str(recording), "--html", str(page)]) == 0
    assert page.stat().st_mode & 0o077 == 0
    seen = drive("page.mjs", page, "PEAR")
    assert (seen["hit"], seen["dialogs"], seen["complaints"]) == ("undefined", 0, [])
    assert seen["requests"] == [page.as_uri()]
    assert (seen["articles"], seen["folded"], seen["count"], seen["marks"]) == (3, 3, "2 of 3", 2)
    elements = seen["elements"]
    assert isinstance(elements, list)
    assert set(elements) <= {"ARTICLE", "DETAILS", "SUMMARY", "DIV", "SPAN", "PRE", "H2", "SECTION", "P", "A"}
    text = seen["text"]
    assert isinstance(text, str)
    for line in (*HOSTILE[:11], "\\u202egnp.exe", "␛[2J"):
        assert line in text
    assert "\u202e" not in page.read_text()
    assert (seen["overflow"], seen["closedInPrint"]) == (0, 0)
    assert seen["light"] != seen["dark"]
