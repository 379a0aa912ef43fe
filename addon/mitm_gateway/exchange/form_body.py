"""The `model` field of a form with files, as requests about audio and images have it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from ..llm.body_kind import media_type
from .body_error import BodyError, Reason
from .json_models import MAX_NAME_BYTES, MAX_NAMES

_BOUNDARY = re.compile(r'(?i)[; \t]boundary=(?:"([^"]+)"|([^\s";,]+))')
_NAMES_MODEL = re.compile(rb'(?i)content-disposition:[ \t]*form-data[ \t]*;[ \t]*name="?model"?[ \t]*')
# Headers of a part: clients send some hundred bytes.
MAX_HEADERS = 8_192


def models_in_form(raw: bytes, content_type: str) -> list[tuple[int, int, str]]:
    """Return the models that a form names, each with its place. Raises BodyError."""
    found = _BOUNDARY.search(content_type)
    if found is None or media_type(content_type) != "multipart/form-data":
        return []
    models = [(start, end, _name(raw[start:end])) for start, end in _fields(raw, found[1] or found[2])]
    if len(models) > MAX_NAMES:
        raise BodyError(Reason.TOO_MANY_MODELS)
    return models


def _fields(raw: bytes, boundary: str) -> Iterator[tuple[int, int]]:
    """Yield the places of the values of fields with the name `model`."""
    mark = b"--" + boundary.encode("utf-8", "surrogateescape")
    start = 0
    for end in _parts(raw, mark):
        value = raw.find(b"\r\n\r\n", start, min(end, start + MAX_HEADERS)) if start else -1
        if value >= 0 and any(map(_NAMES_MODEL.fullmatch, raw[start:value].split(b"\r\n"))):
            yield value + 4, end
        start = end + 2 + len(mark)


def _parts(raw: bytes, mark: bytes) -> Iterator[int]:
    """Yield the places of the line breaks before the boundaries of a form."""
    if raw.startswith(mark):
        yield -2
    at = raw.find(b"\r\n" + mark)
    while at >= 0:
        after = at + 2 + len(mark)
        if raw[after : after + 2] in (b"\r\n", b"--"):
            yield at
        at = raw.find(b"\r\n" + mark, after)


def _name(value: bytes) -> str:
    if len(value) > MAX_NAME_BYTES:
        raise BodyError(Reason.LONG_MODEL)
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise BodyError(Reason.NOT_UTF8) from None


def renamed_form(raw: bytes, models: list[tuple[int, int, str]], sent_for: Callable[[str], str]) -> bytes:
    """Return a form with other names for its models; the same object if none changes."""
    pieces, done = [], 0
    for start, end, name in models:
        if (sent := sent_for(name)) != name:
            pieces += [raw[done:start], sent.encode("utf-8", "surrogateescape")]
            done = end
    return b"".join([*pieces, raw[done:]]) if pieces else raw
