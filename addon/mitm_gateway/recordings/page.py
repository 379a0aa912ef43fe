"""A recording as one HTML file without external resources, written request by request.

Everything from a peer is escaped, and a strict policy lets the browser run nothing but the script of this package.
"""

import base64
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from pathlib import Path

from ..text.printable import one_line
from . import show
from .listing import cost, models, token_counts, when
from .recorded import Recorded

# The first bytes of each page: a file that begins so may be overwritten.
START = "<!doctype html>\n<!-- written by mitm-gateway flows -->\n"
_FOLDER = Path(__file__).parent
# Sections of more requests are not compared; each takes a hundred bytes of memory.
_MAX_KNOWN = 200_000
_GOOD = "ok"


class Page:
    """The pieces of a page, in their order: `start`, one `request` each, and `end`."""

    def __init__(self, title: str) -> None:
        self._title = escape(one_line(title))
        self._known: dict[bytes, tuple[int, int]] = {}
        self._sections = 0

    def start(self) -> str:
        """Return the beginning of the page."""
        style = (_FOLDER / "page.css").read_text()
        policy = f"default-src 'none'; style-src {_hash(style)}; script-src {_hash(_script())}; "
        policy += "base-uri 'none'; form-action 'none'"
        return f"""{START}<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>{self._title}</title>
<style>{style}</style>
</head>
<body>
<header>
<h1>{self._title}</h1>
<div class="tools"><input id="search" type="search" placeholder="Search" aria-label="Search in all requests">
<span id="count" role="status"></span>
<button id="open" type="button">Open all</button><button id="close" type="button">Close all</button></div>
</header>
<main>
"""

    def request(self, recorded: Recorded) -> str:
        """Return a request: a line, behind which the conversation is folded."""
        parts = [
            f'<article id="r{recorded.number}"><details><summary>{_summary(recorded)}</summary><div>',
            f"<pre>{escape(chr(10).join(show.facts(recorded)))}</pre>",
            "<h2>Request</h2>",
            *self._request_sections(recorded),
            "<h2>Answer</h2>",
            *(self._section(text) for text in show.answer(recorded)),
            "</div></details></article>\n",
        ]
        return "\n".join(parts)

    def end(self, remarks: Sequence[str]) -> str:
        """Return the end of the page, with remarks about parts of the recording that are missing."""
        lines = "".join(f"<p>{escape(one_line(remark))}</p>" for remark in remarks)
        return f"</main>\n<footer>{lines}</footer>\n<script>{_script()}</script>\n</body>\n</html>\n"

    def _request_sections(self, recorded: Recorded) -> Iterator[str]:
        """Yield the sections; those that an earlier request has shown are links to it."""
        same: list[tuple[str, int, int]] = []
        for text in show.body_sections(recorded, recorded.request):
            digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
            if known := self._known.get(digest):
                same.append((_title(text), *known))
                continue
            yield from _as_before(same)
            same = []
            if len(self._known) < _MAX_KNOWN:
                self._known[digest] = (recorded.number, self._sections)
            yield self._section(text)
        yield from _as_before(same)

    def _section(self, text: str) -> str:
        number, self._sections = self._sections, self._sections + 1
        rest = text.partition("\n")[2]
        if not rest:
            return f'<section id="s{number}"><pre>{escape(text)}</pre></section>'
        is_open = "" if text.startswith(("system", "tools")) else " open"
        return (
            f'<section id="s{number}"><details{is_open}><summary>{escape(_title(text))}</summary>'
            f"<pre>{escape(rest)}</pre></details></section>"
        )


def _as_before(same: Sequence[tuple[str, int, int]]) -> Iterator[str]:
    """Yield a line that names the sections of an earlier request."""
    if not same:
        return
    title, request, section = same[0]
    names = title if len(same) == 1 else f"{title} … {same[-1][0]}, {len(same)} sections"
    yield f'<p class="same"><a href="#s{section}">{escape(names)}</a>: as in request {request}</p>'


def _title(text: str) -> str:
    return text.partition("\n")[0][:200].removesuffix(":")


def _summary(recorded: Recorded) -> str:
    entry = recorded.entry
    outcome = str(entry.get("outcome") or "unknown")
    place = "" if recorded.asked_model else f"{recorded.head.method} {recorded.head.host}{recorded.head.path}"
    reason = entry.get("refusal") or recorded.error or entry.get("hint") or ""
    spans: Iterable[tuple[str, object]] = (
        ("number", recorded.number),
        ("time", when(recorded)),
        ("model", place or models(entry)),
        ("tokens", token_counts(entry)),
        ("cost", cost(entry)),
        ("good" if outcome == _GOOD else "bad", f"{recorded.status or ''} {outcome} {reason}".strip()),
    )
    return "".join(
        f'<span class="{name}">{escape(recorded.masks.text(one_line(str(value))))}</span>'
        for name, value in spans
        if value != "-"
    )


def _script() -> str:
    return (_FOLDER / "page.js").read_text()


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
