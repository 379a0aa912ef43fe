"""Recordings read one request at a time, however large the file: those of mitmproxy's `-w`, and HAR."""

import gc
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from mitmproxy import flow, http, version
from mitmproxy.io import compat, har, tnetstring

from ..recordings.har_entries import NotHarError, entries
from ..rules.read_file import FileError, open_file
from ..text.printable import one_line
from ..wire.refusal import ANY_FAULT

# A request with its response; no gateway records larger ones. Parsing needs about three times as much memory.
MAX_FLOW = 128 << 20
COLLECT_AFTER = 8 << 20
# Each takes up to 64 bytes of memory and 2 µs. A flow has some hundred values; a message of a WebSocket has seven.
MAX_RECORDED_VALUES = 2_000_000
_MOST_NOTES, _MOST_LEFT_OUT = 20, 1_000
_LENGTH = re.compile(rb"(\d{1,12}):")
_FLOW_TYPE = b"}"
_NO_RECORDING = "this is not a recording"
_EXPECTED = "expected a file that mitmproxy has written (`-w`, `--save`) or a HAR file"


class RecordingError(Exception):
    """A recording cannot be read any further; the text says why, and what was expected."""


class RecordingReader:
    """The HTTP flows of a recording. `notes` are about the parts that were left out."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.notes: list[str] = []
        self._left_out = 0
        self._uncollected = 0

    def __iter__(self) -> Iterator[http.HTTPFlow]:
        """Yield each flow. Raises RecordingError, after the flows before the fault."""
        self.notes, self._left_out = [], 0
        try:
            opened = open_file(self._path)
        except FileError as fault:
            raise self._fault(str(fault)) from None
        with opened as file:
            start = (file.read(64) or b"").removeprefix(b"\xef\xbb\xbf").lstrip()
            file.seek(0)
            if not start:
                raise self._fault("the file is empty: it contains no request")
            yield from self._har(file) if start.startswith(b"{") else self._flows(file)

    def _fault(self, text: str) -> RecordingError:
        return RecordingError(f"{one_line(str(self._path))}: {text}; {_EXPECTED}")

    def note(self, text: str) -> None:
        """Count a part that is left out, and keep the first few remarks. Raises RecordingError after a thousand parts."""
        self._left_out += 1
        if self._left_out > _MOST_LEFT_OUT:
            raise self._fault(f"more than {_MOST_LEFT_OUT:,} parts cannot be read")
        if self._left_out <= _MOST_NOTES:
            self.notes.append(text)
        elif self._left_out == _MOST_NOTES + 1:
            self.notes.append("further parts are left out, too")

    def _bound_garbage(self, size: int) -> None:
        """Collect garbage where much has been read: flows are parts of cycles, which Python counts but never weighs."""
        self._uncollected += size
        if self._uncollected > COLLECT_AFTER:
            gc.collect()
            self._uncollected = size

    # ---- mitmproxy's format: a length, a colon, that many bytes, and a letter for the type ----

    def _flows(self, file: IO[bytes]) -> Iterator[http.HTTPFlow]:
        end, number = os.fstat(file.fileno()).st_size, 0
        while start := file.read(13):
            number += 1
            at = file.tell() - len(start)
            length = _LENGTH.match(start)
            if length is None:
                raise self._fault(f"no flow begins at byte {at:,}" if at else _NO_RECORDING)
            file.seek(at + length.end())
            size = int(length[1])
            if file.tell() + size + 1 > end:
                raise self._fault(
                    f"cut off inside flow {number}, at byte {end:,}" if at else self._no_flow(file)
                )
            if size > MAX_FLOW:
                self.note(f"flow {number} has {size:,} bytes and is left out (limit {MAX_FLOW:,})")
                file.seek(size + 1, 1)
                continue
            self._bound_garbage(size)
            data = file.read(size)
            if file.read(1) != _FLOW_TYPE:
                raise self._fault(f"flow {number}, at byte {at:,}, is damaged" if at else _NO_RECORDING)
            if found := self._flow(data, number):
                yield found

    def _no_flow(self, file: IO[bytes]) -> str:
        """Return the fault of a file without a whole flow: a flow that is cut off, or no recording at all."""
        is_flow = re.match(rb"\d+:\w+[,;]", file.read(32)) is not None
        return "cut off inside flow 1" if is_flow else _NO_RECORDING

    def _flow(self, data: bytes, number: int) -> http.HTTPFlow | None:
        """Return the flow in this state; None where it is not HTTP."""
        try:
            state = _Values().mapping(memoryview(data))
            written = state.get("version", state.get(b"version"))
        except ANY_FAULT:
            raise self._fault(f"flow {number} is damaged") from None
        # mitmproxy would quote all of a long text.
        if not all(isinstance(part, int) for part in (written if isinstance(written, list) else [written])):
            raise self._fault(f"flow {number} is damaged: its format is no number")
        if isinstance(written, int) and written > version.FLOW_FORMAT_VERSION:
            raise self._fault(
                f"flow {number} has format {str(written)[:20]}, from a newer mitmproxy; mitmproxy {version.VERSION} "
                f"reads up to {version.FLOW_FORMAT_VERSION}"
            )
        try:
            found = flow.Flow.from_state(compat.migrate_flow(state))
        except ANY_FAULT:
            raise self._fault(
                f"flow {number} is damaged, or of an unknown format ({written!r:.40})"
            ) from None
        return found if isinstance(found, http.HTTPFlow) else None

    # ---- HAR ----

    def _har(self, file: IO[bytes]) -> Iterator[http.HTTPFlow]:
        try:
            for number, text in enumerate(entries(file, MAX_FLOW), 1):
                if text is None:
                    self.note(f"entry {number} is larger than {MAX_FLOW:,} bytes and is left out")
                else:
                    self._bound_garbage(len(text))
                    if found := self._entry(text, number):
                        yield found
        except NotHarError as fault:
            raise self._fault(str(fault)) from None

    def _entry(self, text: bytes, number: int) -> http.HTTPFlow | None:
        try:
            return har.request_to_flow(json.loads(text))
        except ANY_FAULT as fault:
            self.note(f"entry {number} is not a HAR request ({type(fault).__name__}); it is left out")
            return None


class _Values:
    """The values of one flow, which are counted: mitmproxy's parser builds as many as a file contains."""

    def __init__(self) -> None:
        self._left = MAX_RECORDED_VALUES

    def mapping(self, data: memoryview) -> dict[Any, Any]:
        """Return the mapping with these members. Raises ValueError."""
        members = list(self._each(data))
        return dict(zip(members[::2], members[1::2], strict=True))

    def _each(self, data: memoryview) -> Iterator[Any]:
        while data:
            self._left -= 1
            size, data = tnetstring.split(data, b":")
            if self._left < 0 or not 0 <= size < len(data):
                raise ValueError("too many values, or one that is cut off")
            value, kind, data = data[:size], data[size], data[size + 1 :]
            match chr(kind):
                case "}":
                    yield self.mapping(value)
                case "]":
                    yield list(self._each(value))
                case _:
                    yield tnetstring.parse(kind, value)
