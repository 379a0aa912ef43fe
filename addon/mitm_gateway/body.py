"""Byte-exact edits of a JSON object body: what is not edited stays identical to the byte."""

# The text is walked with the standard library's C scanner, which checks strictly while it skips values. Everything
# outside the edited spans is copied, never re-serialised: numbers, escapes, order and blanks stay as the client wrote them.

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import NamedTuple, NoReturn

# A walk costs Python time per member; the bound keeps a hostile body from stalling the loop (0.1 s at most).
MAX_MEMBERS = 100_000

_MODEL = "model"
_BETAS = "anthropic_beta"


class BodyError(ValueError):
    """A body that cannot be read or edited; its text is a short reason for the client and quotes no content."""


@dataclass(frozen=True, slots=True)
class FieldPath:
    """A place in a body such as `tools[*].name`: keys, element numbers, and None for every element."""

    text: str
    steps: tuple[str | int | None, ...]

    def __str__(self) -> str:
        return self.text


class _Member(NamedTuple):
    """Where a member of an object or an element of an array stands: `start` is the key's quote or the value."""

    key: str | int
    start: int
    value: int
    end: int


class _Edit(NamedTuple):
    """A piece of text and what takes its place."""

    start: int
    end: int
    text: str


@dataclass(frozen=True, slots=True)
class Body:
    """A checked JSON object with the places of its top-level members."""

    raw: bytes = field(repr=False)
    model: str | None
    text: str = field(repr=False)
    members: tuple[_Member, ...] = field(repr=False)
    # The places of the object's two braces in the text.
    braces: tuple[int, int] = field(repr=False)


Betas = Callable[[tuple[str, ...]], tuple[str, ...]]
_Visit = Callable[[str | int, int], int]
_Steps = tuple[str | int | None, ...]


# --- paths ---

_NAME = r"[^\s.\[\]\"']+"
_PATH = re.compile(rf"{_NAME}(?:\[(?:\*|\d{{1,6}})\])*(?:\.{_NAME}(?:\[(?:\*|\d{{1,6}})\])*)*")
_STEP = re.compile(rf"\[(\*|\d+)\]|({_NAME})")


def parse_path(text: str) -> FieldPath:
    """The path that a rule names; ValueError tells the expected form."""
    if not _PATH.fullmatch(text):
        raise ValueError('expected keys and elements such as "a.b", "tools[*].name" or "tools[0]"')
    return FieldPath(text, tuple(_step(match) for match in _STEP.finditer(text)))


def _step(match: re.Match[str]) -> str | int | None:
    if match[2]:
        return match[2]
    return None if match[1] == "*" else int(match[1])


# --- walking ---


def _refuse_constant(_name: str) -> NoReturn:
    raise json.JSONDecodeError("NaN and Infinity are not JSON", "", 0)


# `object_hook=bool` throws each object away as soon as it is complete. Without it the values of a whole body pile up and
# the garbage collector walks them again and again: 3.5 times slower on a 10 MB body of small objects, and far more memory.
_scan_value: Callable[[str, int], tuple[object, int]] = json.JSONDecoder(
    object_hook=bool, parse_constant=_refuse_constant
).scan_once  # type: ignore[attr-defined]
_scan_string: Callable[[str, int, bool], tuple[str, int]] = json.decoder.scanstring  # type: ignore[attr-defined]
_blanks = re.compile(r"[ \t\n\r]*").match


def _skip_blanks(text: str, at: int) -> int:
    match = _blanks(text, at)
    assert match
    return match.end()


def _value_end(text: str, at: int) -> int:
    return _scan_value(text, at)[1]


def _walk(text: str, opening: int, visit: _Visit) -> tuple[tuple[_Member, ...], int]:
    """The members of the object or array that opens there, and the place of its closing bracket.

    `visit` gets each key and the place of its value, and gives the value's end.
    """
    keyed = text[opening] == "{"
    closing = "}" if keyed else "]"
    members: list[_Member] = []
    at = _skip_blanks(text, opening + 1)
    if text[at : at + 1] == closing:
        return (), at
    while True:
        key, value = _key(text, at) if keyed else (len(members), at)
        end = visit(key, value)
        members.append(_Member(key, at, value, end))
        at = _skip_blanks(text, end)
        if text[at : at + 1] == closing:
            return tuple(members), at
        if text[at : at + 1] != ",":
            raise _not_json()
        if len(members) >= MAX_MEMBERS:
            raise BodyError("the body has an object or array with too many members")
        at = _skip_blanks(text, at + 1)


def _key(text: str, at: int) -> tuple[str, int]:
    """The key that starts there, and the place of its value."""
    if text[at : at + 1] != '"':
        raise _not_json()
    key, end = _scan_string(text, at + 1, True)
    colon = _skip_blanks(text, end)
    if text[colon : colon + 1] != ":":
        raise _not_json()
    return key, _skip_blanks(text, colon + 1)


def _not_json() -> BodyError:
    return BodyError("the body is not valid JSON")


# --- scanning ---


def scan(raw: bytes) -> Body:
    """The body, checked as strict JSON with at most one top-level `model`, which is a string."""
    # No cause is kept anywhere here: these exceptions hold the whole body.
    try:
        return _scan(raw, raw.decode())
    except UnicodeDecodeError:
        raise BodyError("the body is not UTF-8") from None
    except (json.JSONDecodeError, StopIteration):
        raise _not_json() from None
    except RecursionError:
        raise BodyError("the body is nested too deep") from None
    except BodyError:
        raise
    except ValueError:
        # Python's guard against quadratic time: more than 4300 digits.
        raise BodyError("the body has a number with too many digits") from None


def _scan(raw: bytes, text: str) -> Body:
    opening = _skip_blanks(text, 1 if text.startswith("\ufeff") else 0)
    if text[opening : opening + 1] != "{":
        _expect_end(text, _value_end(text, opening))
        raise BodyError("the body is not a JSON object")
    model: str | None = None

    def visit(key: str | int, at: int) -> int:
        nonlocal model
        value, end = _scan_value(text, at)
        if key == _MODEL:
            if model is not None:
                raise BodyError('the body has a second "model" key')
            if not isinstance(value, str):
                raise BodyError('"model" is not a string')
            model = value
        return end

    members, closing = _walk(text, opening, visit)
    _expect_end(text, closing + 1)
    return Body(raw, model, text, members, (opening, closing))


def _expect_end(text: str, at: int) -> None:
    if _skip_blanks(text, at) != len(text):
        raise _not_json()


# --- editing ---


def edit(
    body: Body,
    *,
    model: str | None = None,
    betas: Betas | None = None,
    remove: Sequence[FieldPath] = (),
    set_: Sequence[tuple[FieldPath, str]] = (),
) -> bytes:
    """The body's bytes after the edits, in the order of the arguments; `body.raw` itself where nothing changes.

    `model` replaces an existing model and never adds one. `betas` maps the names in a top-level `anthropic_beta` array,
    which goes when none is left. `remove` takes members and elements out; what is not there, or is of another type, is
    passed over, and of repeated keys inside a nested object all go. `set_` takes trusted JSON texts: it replaces a value or
    adds it at the object's end, with the objects that lead to it; where the path meets another type or needs an array that
    is not there, nothing happens. BodyError: an edit touches a repeated top-level key, `set_` a repeated key anywhere.
    """
    edits = _Document(body)
    try:
        if model is not None and body.model is not None and model != body.model:
            edits.replace(_MODEL, _json(model))
        if betas:
            edits.map_betas(betas)
        edits.remove([path.steps for path in remove])
        for path, value in set_:
            edits.set(path.steps, value)
    except RecursionError:
        # The scan had a little more of the stack left.
        raise BodyError("the body is nested too deep") from None
    return _spliced_bytes(body, edits.all())


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


@dataclass(slots=True)
class _Slot:
    """One top-level member while it is edited: first spans of the body's text, then, if need be, a text of its own."""

    source: str
    member: _Member
    edits: list[_Edit] = field(default_factory=list)
    own: str | None = None
    gone: bool = False

    def text(self) -> str:
        if self.own is not None:
            return self.own
        return _spliced(self.source, self.edits, self.member.value, self.member.end)

    def set(self, steps: _Steps, value: str) -> None:
        if not self.edits and self.own is None:
            _assign(self.source, self.member.value, steps, value, self.edits)
        else:
            self.own = _assigned(self.text(), steps, value)

    def all(self) -> list[_Edit]:
        if self.own is None:
            return self.edits
        if self.own == self.source[self.member.value : self.member.end]:
            return []
        return [_Edit(self.member.value, self.member.end, self.own)]


class _Document:
    """The edits of one body, kept by top-level member so that only the touched ones are read again."""

    def __init__(self, body: Body) -> None:
        self._body = body
        self._slots = [_Slot(body.text, member) for member in body.members]
        self._added: dict[str, str] = {}

    def replace(self, key: str, value: str) -> None:
        if slot := self._slot(key):
            slot.own = value

    def map_betas(self, betas: Betas) -> None:
        if (slot := self._slot(_BETAS)) is None:
            return
        names = json.loads(slot.text())
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise BodyError(f'"{_BETAS}" is not an array of strings')
        kept = list(betas(tuple(names)))
        slot.gone = bool(names) and not kept
        if kept != names:
            slot.own = _json(kept)

    def remove(self, paths: list[_Steps]) -> None:
        """All at once: a path below one that goes as a whole has nothing left to do."""
        for key in dict.fromkeys(steps[0] for steps in paths):
            slot = self._slot(key)
            below = [steps[1:] for steps in paths if steps[0] == key]
            if slot is None:
                continue
            if () in below:
                slot.gone = True
            elif slot.own is not None:
                slot.own = _pruned(slot.own, below)
            else:
                _prune(slot.source, slot.member.value, below, slot.edits)

    def set(self, steps: _Steps, value: str) -> None:
        key, below = steps[0], steps[1:]
        if slot := self._slot(key):
            slot.set(below, value)
        elif isinstance(key, str) and key in self._added:
            self._added[key] = _assigned(self._added[key], below, value)
        elif isinstance(key, str) and (built := _wrapped(below, value)) is not None:
            self._added[key] = built

    def all(self) -> list[_Edit]:
        edits = [edit for slot in self._slots if not slot.gone for edit in slot.all()]
        gone = [slot.gone for slot in self._slots]
        added = [f"{_json(key)}:{value}" for key, value in self._added.items()]
        return edits + _membership(self._body.members, gone, added, self._body.braces)

    def _slot(self, key: str | int | None) -> _Slot | None:
        found = [slot for slot in self._slots if slot.member.key == key]
        if len(found) > 1:
            raise BodyError("the body has a repeated key that a rule edits")
        return found[0] if found and not found[0].gone else None


def _membership(
    members: Sequence[_Member], gone: Sequence[bool], added: Sequence[str], brackets: tuple[int, int]
) -> list[_Edit]:
    """The edits that take members and their commas out, and put new ones at the end."""
    opening, closing = brackets
    kept = [at for at, is_gone in enumerate(gone) if not is_gone]
    if not kept:
        texts = [_Edit(opening + 1, opening + 1, ",".join(added))] if added else []
        return texts + ([_Edit(opening + 1, closing, "")] if members else [])
    # In front of the first kept member up to its start, then from the end of each kept member to the end of the last
    # one that goes behind it: what is cut begins with the comma, and the blanks in front of the next comma stay.
    edits = [_Edit(members[0].start, members[kept[0]].start, "")] if kept[0] else []
    for this, following in pairwise([*kept, len(members)]):
        if following - this > 1:
            edits.append(_Edit(members[this].end, members[following - 1].end, ""))
    if added:
        end = members[kept[-1]].end
        edits.append(_Edit(end, end, "".join("," + text for text in added)))
    return edits


def _fits(step: str | int | None, key: str | int) -> bool:
    return step == key or (step is None and isinstance(key, int))


def _prune(text: str, at: int, paths: Sequence[_Steps], edits: list[_Edit]) -> int:
    """Adds the edits that take the paths out of the value there; gives the value's end."""
    if text[at] not in "{[":
        return _value_end(text, at)
    gone: list[bool] = []

    def visit(key: str | int, value: int) -> int:
        below = [steps[1:] for steps in paths if _fits(steps[0], key)]
        gone.append(() in below)
        if below and not gone[-1]:
            return _prune(text, value, below, edits)
        return _value_end(text, value)

    members, closing = _walk(text, at, visit)
    edits += _membership(members, gone, (), (at, closing)) if any(gone) else ()
    return closing + 1


def _assign(text: str, at: int, steps: _Steps, value: str, edits: list[_Edit]) -> int:
    """Adds the edits that set the path below the value there; gives the value's end."""
    if not steps:
        end = _value_end(text, at)
        edits += [_Edit(at, end, value)] if text[at:end] != value else []
        return end
    if text[at] not in "{[":
        return _value_end(text, at)
    step, below = steps[0], steps[1:]
    found = 0

    def visit(key: str | int, place: int) -> int:
        nonlocal found
        if not _fits(step, key):
            return _value_end(text, place)
        found += 1
        return _assign(text, place, below, value, edits)

    members, closing = _walk(text, at, visit)
    if isinstance(step, str) and text[at] == "{":
        if found > 1:
            raise BodyError("the body has a repeated key that a rule edits")
        if not found and (built := _wrapped(below, value)) is not None:
            edits += _membership(members, [False] * len(members), [f"{_json(step)}:{built}"], (at, closing))
    return closing + 1


def _wrapped(steps: _Steps, value: str) -> str | None:
    """The value inside the objects that the steps name; None where a step asks for an array."""
    for step in reversed(steps):
        if not isinstance(step, str):
            return None
        value = f"{{{_json(step)}:{value}}}"
    return value


# --- splicing ---


def _pruned(text: str, paths: Sequence[_Steps]) -> str:
    edits: list[_Edit] = []
    _prune(text, 0, paths, edits)
    return _spliced(text, edits, 0, len(text))


def _assigned(text: str, steps: _Steps, value: str) -> str:
    edits: list[_Edit] = []
    _assign(text, 0, steps, value, edits)
    return _spliced(text, edits, 0, len(text))


def _spliced(text: str, edits: Iterable[_Edit], start: int, end: int) -> str:
    pieces = []
    for edit in sorted(edits, key=_place):
        pieces += [text[start : edit.start], edit.text]
        start = edit.end
    return "".join([*pieces, text[start:end]])


def _spliced_bytes(body: Body, edits: Sequence[_Edit]) -> bytes:
    if not edits:
        return body.raw
    ordered = sorted(edits, key=_place)
    marks = _byte_marks(body, [mark for edit in ordered for mark in (edit.start, edit.end)])
    raw = memoryview(body.raw)
    pieces: list[bytes | memoryview] = []
    done = 0
    for edit, start, end in zip(ordered, marks[::2], marks[1::2], strict=True):
        # What comes from the client may hold lone surrogates; `\ud800` is their form in JSON too.
        pieces += [raw[done:start], edit.text.encode(errors="backslashreplace")]
        done = end
    return b"".join([*pieces, raw[done:]])


def _place(edit: _Edit) -> tuple[int, int]:
    """An insertion stands before the cut that starts at the same place."""
    return edit.start, edit.end


def _byte_marks(body: Body, marks: list[int]) -> list[int]:
    """Places in the text as places in the bytes; of a text beyond ASCII all but the longest run is encoded to count."""
    if body.text.isascii():
        return marks
    runs = list(pairwise([0, *marks, len(body.text)]))
    longest = max(range(len(runs)), key=lambda at: runs[at][1] - runs[at][0])
    sizes = [0 if at == longest else len(body.text[a:b].encode()) for at, (a, b) in enumerate(runs)]
    sizes[longest] = len(body.raw) - sum(sizes)
    return list(accumulate(sizes))[:-1]
