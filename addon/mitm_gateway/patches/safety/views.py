"""Bodies in mitmproxy's own views, prints and exports: what they unpack to, and how much of them is shown."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import wraps
from typing import Any

import mitmproxy_rs
from mitmproxy import contentviews
from mitmproxy.net import encoding

from ...wire import content_encoding
from ..patch import Patches, Unexpected

# The default of `gateway_body_limit`.
MAX_UNPACKED_BYTES = 64 << 20
# mitmproxy takes up to 7 s to format a MiB, except of JSON, which mitmproxy 12 formats in C.
MAX_SHOWN_BYTES, MAX_SHOWN_JSON_BYTES = 64 << 10, 1 << 20
# A text of nested elements grows by the indentation of each.
MAX_SHOWN_CHARACTERS = 2 << 20
# Its parsers of colours take quadratic time, and crash the process at some ten thousand nested items.
MAX_COLOURED, PIECE = 512 << 10, 1 << 10

_OURS = {"gzip": "gzip", "deflate": "deflate", "deflateraw": "deflate", "br": "br", "zstd": "zstd"}
Decode = Callable[[bytes], bytes]
Coloured = list[tuple[str, str]]


def bound_views(patches: Patches) -> None:
    """Unpack a body up to a bound, and show the beginning of one that is larger than anybody reads.

    mitmproxy unpacks and prints any: 64 KB of gzip held up all requests for ten seconds and took 2 GB, and 20 KB of
    hyphens ended the process.
    """
    coders = encoding.custom_decode
    if not _OURS.keys() <= coders.keys():
        raise Unexpected("mitmproxy.net.encoding")
    bounded = {name: _bounded(ours, coders[name]) for name, ours in _OURS.items()}
    patches.set(encoding, "custom_decode", coders | bounded)
    owner: Any = contentviews
    if hasattr(owner, "prettify_message"):
        patches.wrap(owner, "prettify_message", _prettifying_a_beginning)
        patches.wrap(type(owner.graphql), "render_priority", _unfit_for_deep_json)
        patches.wrap(vars(mitmproxy_rs)["syntax_highlight"], "highlight", _in_pieces)
    else:
        patches.wrap(owner, "get_content_view", _showing_a_beginning)


def _bounded(name: str, decode: Decode) -> Decode:
    def decode_within_bound(content: bytes) -> bytes:
        try:
            return content_encoding.decode(content, name, MAX_UNPACKED_BYTES)
        except content_encoding.TooLarge:
            raise
        except content_encoding.DecodingError:
            return decode(content)  # which reads some damaged bodies; the damage is before the bound

    return decode_within_bound


def _is_bounded(view: Any) -> bool:
    """Return whether a view folds long texts itself, as those of the gateway do."""
    return getattr(view, "is_bounded", False)


def _with_rest(text: str, left: int) -> str:
    left += max(0, len(text) - MAX_SHOWN_CHARACTERS)
    return f"{text[:MAX_SHOWN_CHARACTERS]}\n… {left:,} more characters" if left else text


# ---- mitmproxy 12 ----


def _prettifying_a_beginning(prettify: Callable[..., Any]) -> Callable[..., Any]:
    views: Any = vars(contentviews)["registry"]

    def prettify_message(message: Any, flow: Any, view_name: str = "auto", registry: Any = views) -> Any:
        return prettify(message, flow, view_name, _Choice(registry))

    return prettify_message


class _Choice:
    """mitmproxy's choice of a view, which then shows a beginning."""

    def __init__(self, registry: Any) -> None:
        self._registry = registry

    def get_view(self, data: bytes, metadata: Any, view_name: str = "auto") -> Any:
        """Return the view for a body, by its beginning: the view for GraphQL would parse all of it."""
        view = self._registry.get_view(data[:MAX_SHOWN_BYTES], metadata, view_name)
        return view if _is_bounded(view) else _Beginning(view)


class _Beginning:
    """A view of the beginning of a body."""

    def __init__(self, view: Any) -> None:
        self.name, self.syntax_highlight, self._view = view.name, view.syntax_highlight, view

    def prettify(self, data: bytes, metadata: Any) -> str:
        """Return the text of the beginning."""
        limit = MAX_SHOWN_JSON_BYTES if self.name == "JSON" else MAX_SHOWN_BYTES
        if len(data) <= limit:
            return _with_rest(self._view.prettify(data, metadata), 0)
        try:
            # Some views read the message itself instead of the data.
            text = self._view.prettify(data[:limit], replace(metadata, http_message=None))
        except Exception:  # most formats cannot be read without their end
            text, self.syntax_highlight = data[:limit].decode("utf-8", "backslashreplace"), "none"
        return _with_rest(text, len(data) - limit)


def _unfit_for_deep_json(priority: Callable[..., float]) -> Callable[..., float]:
    def render_priority(self: Any, data: bytes, metadata: Any) -> float:
        try:
            return priority(self, data, metadata)
        except RecursionError:  # which mitmproxy would log as an error
            return 0

    return render_priority


def _in_pieces(highlight: Callable[[str, str], Coloured]) -> Callable[[str, str], Coloured]:
    def highlight_in_pieces(text: str, language: str) -> Coloured:
        if len(text) > MAX_COLOURED:
            return [("", text)]
        return [each for piece in _pieces(text) for each in highlight(piece, language)]

    return highlight_in_pieces


def _pieces(text: str) -> Iterator[str]:
    at = 0
    while at < len(text):
        end = text.rfind("\n", at, at + PIECE) + 1 or at + PIECE
        yield text[at:end]
        at = end


# ---- mitmproxy 11 ----


def _showing_a_beginning(show: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(show)
    def get_content_view(viewmode: Any, data: bytes, **metadata: Any) -> Any:
        shown = data[:MAX_SHOWN_BYTES]
        if _is_bounded(_chosen(viewmode, shown, metadata)):
            return show(viewmode, data, **metadata)
        description, lines, error = show(viewmode, shown, **metadata)
        return description, _lines(lines, len(data) - len(shown)), error

    return get_content_view


def _chosen(viewmode: Any, data: bytes, metadata: dict[str, Any]) -> Any:
    """Return the view that mitmproxy's automatic one chooses."""
    if viewmode.name != "Auto":
        return viewmode
    views: Any = vars(contentviews)["views"]
    try:
        return max(views, key=lambda view: (view.render_priority(data, **metadata), view))
    except Exception:  # on which mitmproxy shows the bytes
        return viewmode


def _lines(lines: Iterator[Coloured], left: int) -> Iterator[Coloured]:
    size = 0
    try:
        for line in lines:
            size += sum(len(text) for _, text in line)
            if size > MAX_SHOWN_CHARACTERS:
                yield [("text", "… more lines")]
                return
            yield line
    except RecursionError:
        yield [("text", "… nested too deep")]
    if left:
        yield [("text", f"… {left:,} more bytes")]
