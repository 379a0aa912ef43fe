"""Model names in a form: in fields that are named like the members of the API's JSON, and in JSON inside a field."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple
from urllib.parse import quote, unquote_plus

from ..llm.apis import Api
from .body_error import BodyError, Reason
from .json_body import layout_of, scan
from .json_edits import byte_marks
from .json_models import MAX_NAME_BYTES, MAX_NAMES, PlaceNode, distinct, tree_of
from .json_scanner import json_string

_BOUNDARY = re.compile(r'(?i)[; \t]boundary=(?:"([^"]+)"|([^\s";,]+))')
_DISPOSITION = re.compile(rb"(?i)content-disposition:[ \t]*form-data[ \t]*(;.*)", re.DOTALL)
_PARAMETER = re.compile(rb';[ \t]*([^=; \t]+)[ \t]*=[ \t]*(?:"([^"]*)"|([^";]*))')
# The text after a boundary: a line break, before which servers skip blanks, or the mark of the last one.
_DELIMITED = re.compile(rb"[ \t]*+\r\n|--")
_LAST = re.compile(rb"--|[ \t\r\n]*+\Z")
# `session[model]` is the key "model" of "session", and `models[]` an element of "models".
_STEP = re.compile(r"[^\[\]]+|\[\]")
# Headers of a part: clients send some hundred bytes.
MAX_HEADERS = 8_192
# A field takes some 20 µs. Servers allow 1,000 by default; longer names than this name no model.
MAX_FIELDS, MAX_FIELD_NAME = 4_096, 256
# JSON in all fields together, in bytes: the settings of a session have some thousand.
MAX_FIELD_JSON = 1 << 20


class FormModel(NamedTuple):
    """A model in a form: the place of its text, and how another name is written there."""

    start: int
    end: int
    name: str
    written: Callable[[str], bytes]


@dataclass(frozen=True, slots=True)
class FormBody:
    """A form that names models: each of them once, and their places."""

    raw: bytes = field(repr=False)
    models: tuple[str, ...]
    places: tuple[FormModel, ...] = field(repr=False)

    def renamed(self, sent_for: Callable[[str], str]) -> bytes:
        """Return the form with other names for its models; the same object if none changes."""
        pieces, done = [], 0
        for start, end, name, written in self.places:
            if (sent := sent_for(name)) != name:
                pieces += [self.raw[done:start], written(sent)]
                done = end
        return b"".join([*pieces, self.raw[done:]]) if pieces else self.raw


def read_form(raw: bytes, content_type: str, api: Api) -> FormBody | None:
    """Return a form that names models where this API has them; None for any other body. Raises BodyError."""
    # A second Content-Type may follow.
    kind = content_type.strip().lower()
    found = _BOUNDARY.search(content_type) if kind.startswith("multipart/form-data") else None
    if found:
        places = list(_in_parts(raw, found[1] or found[2], api))
    elif kind.startswith("application/x-www-form-urlencoded"):
        places = list(_in_pairs(raw, api))
    else:
        return None
    if len(places) > MAX_NAMES:
        raise BodyError(Reason.TOO_MANY_MODELS)
    return FormBody(raw, distinct([place.name for place in places]), tuple(places)) if places else None


def _node_of(name: str, api: Api) -> PlaceNode | None:
    """Return the content of a field of this name in an API: a model, or JSON with models."""
    node = tree_of(api.request)
    if len(name) > MAX_FIELD_NAME:
        return None
    for step in _STEP.findall(name.lower()):
        key = None if step == "[]" or step.isdecimal() else step
        if (found := node.below.get(key)) is None:
            return None
        node = found
    return node


def _is_text(node: PlaceNode) -> bool:
    """Report whether the whole text of a field is a model; several fields may have the same name."""
    return node.is_model or (None in node.below and node.below[None].is_model)


# ---- forms with files ----


def _in_parts(raw: bytes, boundary: str, api: Api) -> Iterator[FormModel]:
    mark = b"--" + boundary.encode("utf-8", "surrogateescape")
    start, json_left = 0, MAX_FIELD_JSON
    for end in _parts(raw, mark):
        value = raw.find(b"\r\n\r\n", start, min(end, start + MAX_HEADERS)) if start else -1
        name = _field_name(raw[start:value]) if value >= 0 else None
        if name and (node := _node_of(name, api)):
            if _is_json(node, raw[value + 4 : end]):
                json_left -= end - value - 4
                if json_left < 0:
                    raise BodyError(Reason.LARGE_FIELDS)
                yield from _in_json(raw, value + 4, end, name.lower(), api)
            elif _is_text(node):
                yield _in_text(raw, value + 4, end)
        start = end + 2 + len(mark)
    # Some servers read a last part without an end.
    if mark in raw and not (start and _LAST.match(raw, start)):
        raise BodyError(Reason.OPEN_FORM)


def _parts(raw: bytes, mark: bytes) -> Iterator[int]:
    """Yield the places of the line breaks before the boundaries of a form."""
    if raw.startswith(mark):
        yield -2
    at = raw.find(b"\r\n" + mark)
    for _ in range(MAX_FIELDS + 1):
        if at < 0:
            return
        after = at + 2 + len(mark)
        if _DELIMITED.match(raw, after):
            yield at
        at = raw.find(b"\r\n" + mark, after)
    raise BodyError(Reason.TOO_MANY_FIELDS)


def _field_name(headers: bytes) -> str | None:
    """Return the name of a field; None for a file."""
    for line in headers.split(b"\r\n"):
        if found := _DISPOSITION.fullmatch(line):
            given: dict[bytes, bytes] = {
                key.lower(): (quoted or bare).strip(b" \t")
                for key, quoted, bare in _PARAMETER.findall(found[1])
            }
            if b"name" in given and not given.keys() & {b"filename", b"filename*"}:
                return given[b"name"].decode("utf-8", "replace")
    return None


def _is_json(node: PlaceNode, value: bytes) -> bool:
    return not node.is_model and value.lstrip(b" \t\r\n")[:1] in (b"{", b"[")


def _in_text(raw: bytes, start: int, end: int) -> FormModel:
    if end - start > MAX_NAME_BYTES:
        raise BodyError(Reason.LONG_MODEL)
    return FormModel(start, end, _text(raw[start:end]), _plain)


def _in_json(raw: bytes, start: int, end: int, key: str, api: Api) -> Iterator[FormModel]:
    """Yield the models in a field's JSON, which is read as the member of an object."""
    if "[" in key:
        return
    lead = f'{{"{key}":'.encode()
    layout = layout_of(body := scan(lead + raw[start:end] + b"}", api))
    marks = byte_marks(body, [mark for start, end, *_ in layout.models for mark in (start, end)])
    shift = start - len(lead)
    for first, last, (_, _, name, prefix) in zip(marks[::2], marks[1::2], layout.models, strict=True):
        yield FormModel(first + shift, last + shift, name, partial(_in_quotes, prefix))


def _plain(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape")


def _in_quotes(prefix: str, name: str) -> bytes:
    return json_string(prefix + name)


# ---- forms like a query ----


def _in_pairs(raw: bytes, api: Api) -> Iterator[FormModel]:
    if raw.count(b"&") >= MAX_FIELDS:
        raise BodyError(Reason.TOO_MANY_FIELDS)
    at = 0
    for pair in raw.split(b"&"):
        name, mark, value = pair.partition(b"=")
        node = _node_of(_decoded(name), api) if mark and len(name) <= 3 * MAX_FIELD_NAME else None
        if node and _is_text(node):
            if len(value) > 3 * MAX_NAME_BYTES:  # in percent-encoding
                raise BodyError(Reason.LONG_MODEL)
            yield FormModel(at + len(name) + 1, at + len(pair), unquote_plus(_text(value)), _encoded)
        at += len(pair) + 1


def _text(value: bytes) -> str:
    """Return a model as text. Raises BodyError."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise BodyError(Reason.NOT_UTF8) from None


def _decoded(text: bytes) -> str:
    return unquote_plus(text.decode("utf-8", "surrogateescape"))


def _encoded(name: str) -> bytes:
    return quote(name, safe=":@/", errors="surrogateescape").encode()
