"""Model names in a JSON body: their places in the text, found along the places that the table of APIs lists."""

# The values beside a model are checked and skipped by the C scanner; Python takes a step per member only on the way to
# a model. In a list of many requests an element takes few calls, whichever of its members is the model.

import json
import operator
import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

from ..llm.apis import Api, Place
from .body_error import BodyError, Reason
from .json_walk import BLANK, TEXT, Visit, Walker, refuse_constant, scan_string, skip_blanks, value_end

# A bound for the time that a hostile body takes (a third of a second).
MAX_STEPS = 300_000
# More names than this in one body are not a client's doing.
MAX_NAMES = 1_000
# Names, ARNs of Bedrock included, have fewer than 2,048 bytes; a name goes into headers, logs and each response.
MAX_NAME_BYTES = 8_192


_Match: TypeAlias = Callable[[str, int], re.Match[str] | None]

_MODEL_KEY = '"model"'
_BRACKETS = ("{", "[")


ModelName: TypeAlias = tuple[int, int, str, str]
"""A model in a body: start and end of its string, quotes included, its name, and the resource name up to it."""


class ElementFrame(NamedTuple):
    """The simple members of a list's elements around the object that has the model."""

    lead: _Match
    """Matches from the start of an element to this object."""
    between: _Match
    """Matches from the end of this object to the next one; its group is the start of the next element."""


class PlaceNode(NamedTuple):
    """A value on the way to models: whether a text there is a model, and the values below it."""

    is_model: bool
    below: dict[str | None, Any]
    is_main: bool
    """True on the way to an API's first place, where nothing else may stand."""
    is_gated: bool
    """True if a text without a key "model" has no model there, and may be anything."""
    frame: ElementFrame | None


def distinct(names: Iterable[str]) -> tuple[str, ...]:
    """Return the names of models, each once. Raises BodyError if they are too many or too long."""
    models = tuple(dict.fromkeys(names))
    if len(models) > MAX_NAMES:
        raise BodyError(Reason.TOO_MANY_MODELS)
    if any(len(name.encode("utf-8", "surrogatepass")) > MAX_NAME_BYTES for name in models):
        raise BodyError(Reason.LONG_MODEL)
    return models


@lru_cache(maxsize=64)
def tree_of(places: tuple[Place, ...], *, is_main: bool = True) -> PlaceNode:
    """Return the places of an API as a tree."""
    below: dict[str | None, PlaceNode] = {}
    for step in dict.fromkeys(place[0] for place in places if place):
        leads_to_first = is_main and places[0][:1] == (step,)
        below[step] = tree_of(
            tuple([place[1:] for place in places if place and place[0] == step]), is_main=leads_to_first
        )
    is_keyed = all(place[-1:] == ("model",) for place in places)
    is_gated = is_keyed and not is_main
    return PlaceNode(() in places, below, is_main, is_gated, _frame(places) if is_keyed else None)


_NUMBER = r"-?(?:0|[1-9][0-9]{0,300}+)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?"
_SIMPLE = rf"(?:{TEXT}|{_NUMBER}|true|false|null)"


def _frame(places: tuple[Place, ...]) -> ElementFrame | None:
    if not places or None in places[0]:
        return None
    lead = trail = ""
    for key in places[0][:-1]:
        name = re.escape(json.dumps(key))
        member = rf"(?!{name}){TEXT}{BLANK}:{BLANK}{_SIMPLE}"
        lead += rf"\{{{BLANK}(?:{member}{BLANK},{BLANK})*+{name}{BLANK}:{BLANK}"
        trail = rf"(?:{BLANK},{BLANK}{member})*+{BLANK}\}}{trail}"
    return ElementFrame(re.compile(lead).match, re.compile(rf"{trail}{BLANK},{BLANK}(){lead}").match)


# Returns the value of an object's key "model", and the object's end; all other values are dropped as they are read.
_scan_model: Callable[[str, int], tuple[object, int]] = json.JSONDecoder(
    object_hook=operator.methodcaller("get", "model"), parse_float=bool, parse_constant=refuse_constant
).scan_once  # type: ignore[attr-defined]
_plain_text = re.compile(rf"{BLANK}:{BLANK}({TEXT})").match
# The segments of a resource name that precede a model.
RESOURCES = ("models", "tunedModels")
_RESOURCE = re.compile(rf"(?:[^/]+/)*?(?:{'|'.join(RESOURCES)})/")


class Finder:
    """Finds the models of one body."""

    def __init__(self, text: str, api: Api) -> None:
        self._text = text
        self._has_resource_names = api.has_resource_names
        self._walker = Walker(MAX_STEPS)
        # Without escaped letters a key "model" has one spelling.
        self._is_plain = "\\" not in text or "\\u006" not in text
        self.found: list[ModelName] = []

    def value(self, node: PlaceNode, at: int) -> int:
        """Find the models in the value there; return its end. Raises BodyError."""
        text = self._text
        if node.is_gated and self._is_plain:
            end = value_end(text, at)
            if text.find(_MODEL_KEY, at, end) < 0:
                return end
        mark = text[at : at + 1]
        if mark == '"' and node.is_model:
            return self._name(at)
        if mark == "{" and node.below and None not in node.below:
            count = len(self.found)
            end = self._walker.walk(text, at, self.members_of(node)) + 1
            if node.is_model and len(self.found) == count:
                raise BodyError(Reason.MODEL_NOT_A_STRING)
            return end
        if mark == "[" and None in node.below:
            return self._list(node.below[None], at)
        end = value_end(text, at)
        if node.is_model:
            if text[at:end] != "null":
                raise BodyError(Reason.MODEL_NOT_A_STRING)
        elif node.is_main or mark in _BRACKETS:
            raise BodyError(Reason.NO_MODELS)
        return end

    def _name(self, at: int) -> int:
        name, end = scan_string(self._text, at + 1, True)
        prefix = ""
        if self._has_resource_names and (resource := _RESOURCE.match(name)):
            prefix, name = resource[0], name[resource.end() :]
        self.found.append((at, end, name, prefix))
        return end

    def members_of(self, node: PlaceNode, *, may_be_null: bool = False) -> Visit:
        """Return a visit to the members of one object; with `may_be_null` a member without a value counts as absent."""
        text, value = self._text, self.value
        below: dict[Any, PlaceNode] = node.below
        seen: set[str | int] = set()

        def visit(key: str | int, _start: int, at: int) -> int:
            if (node := below.get(key)) is None:
                return value_end(text, at)
            if key in seen:
                raise BodyError(Reason.SECOND_MODEL if key == "model" else Reason.REPEATED_KEY)
            seen.add(key)
            return at + 4 if may_be_null and text.startswith("null", at) else value(node, at)

        return visit

    def _list(self, node: PlaceNode, opening: int) -> int:
        def visit(_number: str | int, _start: int, at: int) -> int:
            return self.value(node, at)

        first = None
        if node.frame is not None and self._is_plain and not self._has_resource_names:
            first = self._plain_elements(node.frame, skip_blanks(self._text, opening + 1))
        return self._walker.walk(self._text, opening, visit, first) + 1

    def _plain_elements(self, frame: ElementFrame, at: int) -> int | None:
        """Find the models of the first elements, as long as each has one key "model"; return the start of the next one.

        The object in the frame has a text as its model, so this key is the one. The last element is left to the caller.
        """
        text, find, between, add = self._text, self._text.find, frame.between, self.found.append
        lead, found, next_one = frame.lead(text, at), find(_MODEL_KEY, at), None
        for _ in range(MAX_STEPS):
            if not lead or text[start := lead.end()] != "{":
                break
            name, end = _scan_model(text, start)
            model, lead = _plain_text(text, found + len(_MODEL_KEY)), between(text, end)
            found = find(_MODEL_KEY, found + len(_MODEL_KEY))
            if not model or not lead or name.__class__ is not str or 0 <= found < end:
                break
            start, end = model.span(1)
            add((start, end, name, ""))
            next_one = lead.start(1)
        return next_one
