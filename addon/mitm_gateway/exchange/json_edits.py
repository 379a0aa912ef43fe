"""Byte-exact edits of a JSON object: every byte outside the edited spans stays as it is."""

# Everything outside the edited spans is copied, never serialised again: numbers, escapes, order and white space stay as
# the client wrote them.

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate, groupby, islice, pairwise
from operator import itemgetter
from typing import TypeAlias

from ..llm.apis import OTHER
from ..rules.field_paths import FieldPath, PathStep, PathSteps, Selector
from . import json_body
from .body_error import BodyError, Reason
from .json_body import Body, Layout, layout_of
from .json_models import ModelName
from .json_walk import Member, Walker, value_end

_MODEL = "model"
BETAS = "anthropic_beta"
# Bedrock's Converse passes these members on to the model.
BETA_PARENTS = ("additionalModelRequestFields",)
BETA_KEYS = frozenset({BETAS, *BETA_PARENTS})
Betas = Callable[[tuple[str, ...]], tuple[str, ...]]


_Edit: TypeAlias = tuple[int, int, str]
"""Start and end of a span of text, and its replacement."""


def edit(
    body: Body,
    *,
    model: Callable[[str], str] | None = None,
    betas: Betas | None = None,
    needs_betas: bool = True,
    remove: Sequence[FieldPath] = (),
    set_: Sequence[tuple[FieldPath, str]] = (),
) -> bytes:
    """Return the body's bytes after the edits, made in the order of the arguments; `body.raw` if nothing changes.

    `model` maps the models that the body names. `betas` maps the names in an `anthropic_beta` array, at the top level or
    among the fields that Converse passes on; an array that becomes empty is removed, and with `needs_betas` one with
    anything but text is an error. `remove` removes members and elements; it ignores paths that are missing or lead to
    another type, and removes every one of repeated keys in a nested object. `set_` takes trusted JSON texts: it replaces a
    value or adds it, with the objects that lead to it, at the end of the object; it does nothing if the path meets another
    type or needs an array that is missing. Raises BodyError if an edit touches a repeated top-level key, or `set_` a
    repeated key anywhere.
    """
    renamed = {name: sent for name in body.models if model and (sent := model(name)) != name}
    if not BETA_KEYS & body.keys:
        betas = None
    removed = [path.steps for path in remove if path.steps[0] in body.keys]
    if not (betas or removed or set_):
        return _renamed(body, renamed)
    try:
        edits = _Document(layout_of(body))
        edits.rename(renamed)
        if betas:
            edits.map_betas(betas, needs_betas)
        edits.remove(removed)
        for path, value in set_:
            edits.set(path.steps, value)
    except RecursionError:
        # The scan had a little more of the stack left.
        raise BodyError(Reason.TOO_DEEP) from None
    return _spliced_bytes(body, edits.all())


_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


# --- models ---


def _renamed(body: Body, renamed: Mapping[str, str]) -> bytes:
    if not renamed:
        return body.raw
    if body.model and (span := _model_span(body)):
        return _joined(body.raw, [(*span, _json(renamed[body.model]))])
    return _spliced_bytes(body, _renames(layout_of(body).models, renamed))


def _renames(models: Iterable[ModelName], renamed: Mapping[str, str]) -> list[_Edit]:
    """Return the edits that rename models."""
    texts = {name: _json(sent) for name, sent in renamed.items()}
    return [
        (start, end, _json(prefix + renamed[name]) if prefix else texts[name])
        for start, end, name, prefix in models
        if name in renamed
    ]


_leading_model = re.compile(
    rb'(?:\xef\xbb\xbf)?[ \t\n\r]*\{[ \t\n\r]*"model"[ \t\n\r]*:[ \t\n\r]*("[^"\\]*")'
).match
_model_members = re.compile(rb'"model"[ \t\n\r]*:[ \t\n\r]*("[^"\\]*")?').finditer


def _model_span(body: Body) -> tuple[int, int] | None:
    """Return the span of the top-level model's value with its quotes, if it can be found without a walk.

    The body has been checked: where only the top level can have a model, it has exactly one.
    """
    if body.api.request != OTHER.request or body.api.has_resource_names:
        return None
    found = _leading_model(body.raw)
    if not found and body.layout is None:
        found = _only_model(body.raw)
    return found.span(1) if found else None


def _only_model(raw: bytes) -> re.Match[bytes] | None:
    """Return the model that is not the first member, if no other text looks like its key and no key has escapes.

    Then the one text that does is the key: every other spelling has a letter of it as `\\u006…`.
    """
    found = list(islice(_model_members(raw), 2))
    is_sure = len(found) == 1 and found[0][1] is not None and b"\\u006" not in raw
    return found[0] if is_sure else None


# --- edits in order ---


class _Document:
    """The edits of one body, by top-level member: each works on the member's text as the ones before have left it."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._editor = _Editor(json_body.MAX_MEMBERS)
        self._changed: dict[Member, str] = {}
        self._gone: set[Member] = set()
        self._added: dict[str, str] = {}

    def rename(self, renamed: Mapping[str, str]) -> None:
        members, text = self._layout.members, self._layout.text
        starts = [member.start for member in members]
        edits = _renames(self._layout.models, renamed)
        for at, own in groupby(edits, key=lambda edit: bisect_right(starts, edit[0]) - 1):
            self._changed[members[at]] = _spliced(text, own, members[at].value, members[at].end)

    def map_betas(self, betas: Betas, is_needed: bool) -> None:
        if (member := self._member(BETAS)) is not None:
            names, kept = _mapped_betas(self._text(member), betas, is_needed)
            if names and not kept:
                self._gone.add(member)
            elif kept != names:
                self._changed[member] = _json(kept)
        for member in filter(None, map(self._member, BETA_PARENTS)):
            for value in self._editor.values(self._text(member), BETAS):
                names, kept = _mapped_betas(value, betas, is_needed)
                if names and not kept:
                    self._changed[member] = self._editor.pruned(self._text(member), [(BETAS,)])
                elif kept != names:
                    self._changed[member] = self._editor.assigned(self._text(member), (BETAS,), _json(kept))

    def remove(self, paths: list[PathSteps]) -> None:
        """Remove all paths at once: a path inside a member that is removed has no effect."""
        for key in dict.fromkeys(steps[0] for steps in paths):
            below = [steps[1:] for steps in paths if steps[0] == key]
            if (member := self._member(key)) is None:
                continue
            if () in below:
                self._gone.add(member)
            else:
                self._changed[member] = self._editor.pruned(self._text(member), below)

    def set(self, steps: PathSteps, value: str) -> None:
        key, below = steps[0], steps[1:]
        if member := self._member(key):
            self._changed[member] = self._editor.assigned(self._text(member), below, value)
        elif isinstance(key, str) and key in self._added:
            self._added[key] = self._editor.assigned(self._added[key], below, value)
        elif isinstance(key, str) and (built := _wrapped(below, value)) is not None:
            self._added[key] = built

    def all(self) -> list[_Edit]:
        members, text = self._layout.members, self._layout.text
        edits = [
            (member.value, member.end, changed)
            for member, changed in self._changed.items()
            if member not in self._gone and changed != text[member.value : member.end]
        ]
        gone = [member in self._gone for member in members]
        added = [f"{_json(key)}:{value}" for key, value in self._added.items()]
        return edits + _membership(members, gone, added, self._layout.braces)

    def _text(self, member: Member) -> str:
        return self._changed.get(member) or self._layout.text[member.value : member.end]

    def _member(self, key: PathStep) -> Member | None:
        found = [member for member in self._layout.members if member.key == key]
        if len(found) > 1:
            raise BodyError(Reason.REPEATED_KEY)
        return found[0] if found and found[0] not in self._gone else None


def _mapped_betas(text: str, betas: Betas, is_needed: bool) -> tuple[list[str], list[str]]:
    """Return the names in a list of betas, and those to send; none for another value. Raises BodyError."""
    names = json.loads(text)
    if isinstance(names, list) and all(isinstance(name, str) for name in names):
        return names, list(betas(tuple(names)))
    if is_needed and names is not None:  # null is no list of names, and stays
        raise BodyError(Reason.BETAS_NOT_STRINGS)
    return [], []


def _membership(
    members: Sequence[Member], gone: Sequence[bool], added: Sequence[str], brackets: tuple[int, int]
) -> list[_Edit]:
    """Return the edits that remove members with their commas, and add new ones at the end."""
    opening, closing = brackets
    kept = [at for at, is_gone in enumerate(gone) if not is_gone]
    if not kept:
        texts = [(opening + 1, opening + 1, ",".join(added))] if added else []
        return texts + ([(opening + 1, closing, "")] if members else [])
    # Cut up to the start of the first kept member, then from the end of each kept member to the end of the last removed
    # one behind it: the cut begins with the comma, and the white space before the next comma stays.
    edits = [(members[0].start, members[kept[0]].start, "")] if kept[0] else []
    for this, following in pairwise([*kept, len(members)]):
        if following - this > 1:
            edits.append((members[this].end, members[following - 1].end, ""))
    if added:
        end = members[kept[-1]].end
        edits.append((end, end, "".join("," + text for text in added)))
    return edits


class _Editor(Walker):
    """The nested edits of one call, which share one bound on members."""

    def values(self, text: str, key: str) -> list[str]:
        """Return the value of a key in an object's text, if it has one. Raises BodyError if the key is repeated."""
        found: list[str] = []

        def visit(own: str | int, _start: int, at: int) -> int:
            end = value_end(text, at)
            if own == key:
                found.append(text[at:end])
            return end

        if text.startswith("{"):
            self.walk(text, 0, visit)
        if len(found) > 1:
            raise BodyError(Reason.REPEATED_KEY)
        return found

    def prune(self, text: str, at: int, paths: Sequence[PathSteps], edits: list[_Edit]) -> int:
        """Add the edits that remove the paths from the value there; return the value's end."""
        if text[at] not in "{[":
            return value_end(text, at)
        gone: list[bool] = []

        def visit(key: str | int, _start: int, value: int) -> int:
            below = [steps[1:] for steps in paths if self._fits(steps[0], key, text, value)]
            gone.append(() in below)
            if below and not gone[-1]:
                return self.prune(text, value, below, edits)
            return value_end(text, value)

        members, closing = self.members(text, at, visit)
        edits += _membership(members, gone, (), (at, closing)) if any(gone) else ()
        return closing + 1

    def assign(self, text: str, at: int, steps: PathSteps, value: str, edits: list[_Edit]) -> int:
        """Add the edits that set the path inside the value there; return the value's end."""
        if not steps:
            end = value_end(text, at)
            edits += [(at, end, value)] if text[at:end] != value else []
            return end
        if text[at] not in "{[":
            return value_end(text, at)
        step, below = steps[0], steps[1:]
        found = 0

        def visit(key: str | int, _start: int, place: int) -> int:
            nonlocal found
            if not self._fits(step, key, text, place):
                return value_end(text, place)
            found += 1
            return self.assign(text, place, below, value, edits)

        members, closing = self.members(text, at, visit)
        if isinstance(step, str) and text[at] == "{":
            if found > 1:
                raise BodyError(Reason.REPEATED_KEY)
            if not found and (built := _wrapped(below, value)) is not None:
                added = [f"{_json(step)}:{built}"]
                edits += _membership(members, [False] * len(members), added, (at, closing))
        return closing + 1

    def _fits(self, step: PathStep, key: str | int, text: str, value: int) -> bool:
        if isinstance(step, Selector):
            return isinstance(key, int) and text[value] == "{" and self._selects(step, text, value)
        return step == key or (step is None and isinstance(key, int))

    def _selects(self, selector: Selector, text: str, at: int) -> bool:
        """Return whether the object there has the selector's key with a text that its glob covers."""
        found = False

        def visit(key: str | int, _start: int, value: int) -> int:
            nonlocal found
            end = value_end(text, value)
            if key == selector.key and text[value] == '"' and not found:
                found = selector.glob.covers(json.loads(text[value:end]))
            return end

        self.walk(text, at, visit)
        return found

    def pruned(self, text: str, paths: Sequence[PathSteps]) -> str:
        edits: list[_Edit] = []
        self.prune(text, 0, paths, edits)
        return _spliced(text, edits, 0, len(text))

    def assigned(self, text: str, steps: PathSteps, value: str) -> str:
        edits: list[_Edit] = []
        self.assign(text, 0, steps, value, edits)
        return _spliced(text, edits, 0, len(text))


def _wrapped(steps: PathSteps, value: str) -> str | None:
    """Return the value inside the objects that the steps name; None if a step needs an array."""
    for step in reversed(steps):
        if not isinstance(step, str):
            return None
        value = f"{{{_json(step)}:{value}}}"
    return value


# --- splicing ---


def _spliced(text: str, edits: Iterable[_Edit], start: int, end: int) -> str:
    pieces = []
    for edit_start, edit_end, replacement in sorted(edits, key=_place):
        pieces += [text[start:edit_start], replacement]
        start = edit_end
    return "".join([*pieces, text[start:end]])


def _spliced_bytes(body: Body, edits: Sequence[_Edit]) -> bytes:
    if not edits:
        return body.raw
    ordered = sorted(edits, key=_place)
    if not layout_of(body).text.isascii():
        marks = byte_marks(body, [mark for start, end, _ in ordered for mark in (start, end)])
        ordered = list(zip(marks[::2], marks[1::2], [text for *_, text in ordered], strict=True))
    return _joined(body.raw, ordered)


def _joined(raw: bytes, edits: Iterable[tuple[int, int, str]]) -> bytes:
    view = memoryview(raw)
    pieces: list[bytes | memoryview] = []
    done = 0
    for start, end, text in edits:
        # Text of the client may contain lone surrogates; `\ud800` is their form in JSON too.
        pieces += (view[done:start], text.encode("utf-8", "backslashreplace"))
        done = end
    return b"".join([*pieces, view[done:]])


# A sort key that puts an insertion before the cut that starts at the same position.
_place = itemgetter(0, 1)


def byte_marks(body: Body, marks: list[int]) -> list[int]:
    """Return positions in the text as positions in the bytes; all but the longest run is encoded to be counted."""
    text = layout_of(body).text
    runs = list(pairwise([0, *marks, len(text)]))
    longest = max(range(len(runs)), key=lambda at: runs[at][1] - runs[at][0])
    sizes = [0 if at == longest else len(text[a:b].encode()) for at, (a, b) in enumerate(runs)]
    sizes[longest] = len(body.raw) - sum(sizes)
    return list(accumulate(sizes))[:-1]
