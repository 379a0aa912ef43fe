"""The client's model name, put back into a response while it streams; no other byte changes."""

import json
import re
from collections.abc import Callable
from functools import lru_cache

from ..llm.apis import OTHER, Api, Place
from ..llm.body_kind import kind_of
from .json_scanner import ModelScanner, Rename, json_string, leading_model, names_in

# JSON has the model at its top, as an object with an id where the request has one.
JSON_PLACES: tuple[Place, ...] = (("model",), ("model", "id"))

# One search for both: a search for each would read the rest of the chunk again for every line.
_LINE_END = re.compile(rb"[\r\n]")
_MAX_FIELD_NAME = 8
# The first bytes identify the kind of a body; the longest name of a field has this size.
_MAX_UNDECIDED = 64


def always(name: str, *, keeps_resource: bool = False) -> Rename:
    """Return a function that replaces every model by this name.

    With `keeps_resource` a model is written as a resource, `models/NAME`, of which the client asked for the name only.
    Elsewhere `models/` is part of a name, as in `accounts/fireworks/models/NAME`.
    """
    replacement = json_string(name)

    def rename(text: bytes) -> bytes:
        if not keeps_resource:
            return replacement
        resource, slash, _ = text.rpartition(b"models/")
        return resource + slash + replacement[1:] if slash else replacement

    return rename


def by_name(asked_for: Callable[[str], str | None]) -> Rename:
    """Return a function that replaces the models for which `asked_for` knows the client's name."""

    def rename(text: bytes) -> bytes:
        try:
            sent = json.loads(text)
        except ValueError:
            return text
        name = asked_for(sent)
        return text if name in (None, sent) else json_string(name)

    return rename


class AutoRestorer:
    """Restores the models of a response whose first bytes tell its kind."""

    def __init__(self, rename: Rename, api: Api, content_type: str) -> None:
        self._rename = rename
        self._api = api
        self._content_type = content_type
        self._start = b""
        self._restorer: JsonRestorer | SseRestorer | None = None
        self._is_decided = False

    def feed(self, chunk: bytes) -> bytes:
        """Return what may leave after this chunk."""
        if self._is_decided:
            return self._restorer.feed(chunk) if self._restorer else chunk
        self._start += chunk
        is_whole = len(self._start) > _MAX_UNDECIDED
        if (kind := kind_of(self._content_type, self._start, is_whole=is_whole)) is None:
            return b""
        start, self._start = self._start, b""
        self._is_decided = True
        match kind:
            case "sse":
                self._restorer = SseRestorer(self._rename, self._api.response)
            case "json" if self._api.is_json_lines:
                self._restorer = LinesRestorer(self._rename, self._api.response)
            case "json":
                is_common = self._api.response == OTHER.response
                self._restorer = JsonRestorer(self._rename, JSON_PLACES if is_common else self._api.response)
        return self.feed(start)

    def flush(self) -> bytes:
        """Return what is still held at the end."""
        start, self._start = self._start, b""
        return start + (self._restorer.flush() if self._restorer else b"")


class JsonRestorer:
    """Restores the models of a JSON response."""

    def __init__(self, rename: Rename, places: tuple[Place, ...] = JSON_PLACES) -> None:
        self._rename = rename
        self._places = places
        # Most responses are whole with their first chunk, which needs no scanner unless more follows.
        self._scanner: ModelScanner | None = None
        self._unread = b""

    def feed(self, chunk: bytes) -> bytes:
        """Return what may leave after this chunk."""
        if self._scanner is None:
            if not self._unread and self._places == JSON_PLACES and (span := leading_model(chunk)):
                self._unread = chunk
                return b"".join((chunk[: span[0]], self._rename(chunk[slice(*span)]), chunk[span[1] :]))
            self._scanner = ModelScanner(self._rename, self._places)
            self._scanner.feed(self._unread)
            self._unread = b""
        return self._scanner.feed(chunk)

    def flush(self) -> bytes:
        """Return what is still held at the end."""
        return self._scanner.take_held() if self._scanner else b""


class SseRestorer:
    """Restores the models in the events of a stream."""

    def __init__(self, rename: Rename, places: tuple[Place, ...] = OTHER.response) -> None:
        self._scanner = ModelScanner(rename, places)
        self._has_fed = False  # data of this event to the scanner
        self._find_key = _search_for(names_in(places))
        self._field = bytearray()
        self._in_data = False
        self._in_name = True
        self._line_is_empty = True
        self._after_cr = False
        self._is_first_line = True

    def feed(self, chunk: bytes) -> bytes:
        """Return what may leave after this chunk."""
        if self._is_at_line_start() and self._is_plain(chunk) and not self._scanner.is_inside:
            if self._has_fed:
                self._reset()
            return chunk
        out: list[bytes] = []
        pos, end = 0, len(chunk)
        while pos < end:
            found = _LINE_END.search(chunk, pos)
            stop = found.start() if found else end
            if stop > pos:
                out.append(self._piece(chunk[pos:stop]))
                self._after_cr = False
            if stop < end:
                out.append(self._terminator(chunk[stop : stop + 1]))
            pos = stop + 1
        return b"".join(out)

    def flush(self) -> bytes:
        """Return what is still held at the end."""
        return self._scanner.take_held()

    def _is_at_line_start(self) -> bool:
        return self._line_is_empty and not self._after_cr and not self._is_first_line

    def _is_plain(self, chunk: bytes) -> bool:
        """Report whether a chunk is whole events in which no key can be a model's, not even one with escapes."""
        # `find`, as `in` reads its argument as a number first.
        if not chunk.endswith(b"\n\n") or chunk.find(b"\\u006") >= 0 or chunk.find(b"\r") >= 0:
            return False
        return self._find_key(chunk) is None

    def _reset(self) -> None:
        self._scanner.reset()
        self._has_fed = False

    def _scanned(self, data: bytes) -> bytes:
        self._has_fed = True
        return self._scanner.feed(data)

    def _piece(self, piece: bytes) -> bytes:
        """Return what may leave of a part of a line: a field's name, data, or something that stays as it is."""
        self._line_is_empty = False
        if self._in_data:
            return self._scanned(piece)
        if not self._in_name:
            return piece
        name, colon, rest = piece.partition(b":")
        if len(self._field) <= _MAX_FIELD_NAME:
            self._field += name[: 2 * _MAX_FIELD_NAME]
        if not colon:
            return piece
        self._in_name = False
        field = bytes(self._field)
        if self._is_first_line:
            field = field.removeprefix(b"\xef\xbb\xbf")
        self._in_data = field == b"data"
        return name + colon + (self._scanned(rest) if self._in_data else rest)

    def _terminator(self, mark: bytes) -> bytes:
        if mark == b"\n" and self._after_cr:  # the second half of CR LF
            self._after_cr = False
            return mark
        self._after_cr = mark == b"\r"
        # No string contains a line break: what is held belongs to a broken document.
        held = self._scanner.take_held() if self._in_data and self._scanner.in_string else b""
        if self._line_is_empty:
            self._reset()
        self._field.clear()
        self._in_data = self._is_first_line = False
        self._in_name = self._line_is_empty = True
        return held + mark


class LinesRestorer(SseRestorer):
    """Restores the models of JSON Lines: each line is a document."""

    def _piece(self, piece: bytes) -> bytes:
        self._line_is_empty = False
        return self._scanned(piece)

    def _terminator(self, mark: bytes) -> bytes:
        held = self._scanner.take_held()
        self._reset()
        self._line_is_empty, self._is_first_line = True, False
        return held + mark


@lru_cache(maxsize=64)
def _search_for(names: tuple[str, ...]) -> Callable[[bytes], re.Match[bytes] | None]:
    """Return a search for any of these names as a JSON string."""
    return re.compile(b"|".join(re.escape(json_string(name)) for name in names)).search
