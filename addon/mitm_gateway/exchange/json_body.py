"""A request body, checked as strict JSON, and the positions of its members."""

# The standard library's C scanner checks strictly while the walk skips values. With the extra `speed`, simdjson checks
# instead, up to seven times as fast, and the walk waits until an edit needs more positions than the model's. simdjson
# accepts less than the walk does: a body that it rejects is walked. What a body needs in memory is counted before the
# walk builds any of it; for simdjson, which builds nothing, a sample is enough.

import codecs
import json
import re
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, NamedTuple

from ..llm.apis import OTHER, Api
from ..llm.session import SESSION_KEYS, session_in_body
from ..text.bounded_json import SMALL_TEXT, is_overgrown_in_turns, is_sparse
from ..text.turns import Turns, finish
from .body_error import BodyError, OvergrownError, Reason
from .json_models import MAX_NAME_BYTES, Finder, ModelName, PlaceNode, distinct, tree_of
from .json_parsers import Parsers
from .json_walk import Member, Walker, skip_blanks, value_end

simdjson: Any
try:
    import simdjson
except (ImportError, RuntimeError):  # RuntimeError: installed, but its compiled part cannot be loaded
    simdjson = None

# A walk takes Python time per member; the bound keeps a hostile body from blocking the event loop for more than half a
# second. One scan has this bound, and so have all edits of one call together.
MAX_MEMBERS = 100_000
# simdjson needs up to thirteen times the size of a body of short values (832 MB for 64 MB of "0,"), so large bodies of
# such values, and very large bodies, are walked.
_MAX_QUICK_BYTES, _MAX_DENSE_BYTES, _DENSE = 16 << 20, 1 << 20, 8
_parsers: Any = Parsers(simdjson.Parser) if simdjson is not None else None

_MODEL = "model"
# More than the APIs allow in `metadata`: members, and characters.
_MAX_METADATA, _MAX_METADATA_TEXT = 64, 1 << 14


class Layout(NamedTuple):
    """A body's text, and the positions of the top-level members, of the two braces around them and of the models."""

    text: str
    members: list[Member]
    braces: tuple[int, int]
    models: tuple[ModelName, ...]


@dataclass(slots=True)
class Body:
    """A checked JSON object: its bytes, the models that it names, each once, and the keys at its top level."""

    raw: bytes = field(repr=False)
    models: tuple[str, ...]
    keys: frozenset[str] = field(repr=False)
    session: str | None = field(default=None, repr=False, compare=False)
    api: Api = field(default=OTHER, repr=False, compare=False)
    # Computed when an edit first needs it.
    layout: Layout | None = field(default=None, repr=False, compare=False)

    @property
    def model(self) -> str | None:
        """The first model that the body names."""
        return self.models[0] if self.models else None


# --- scanning ---


def scan(raw: bytes, api: Api = OTHER) -> Body:
    """Return the body, checked as strict JSON, with its models where this API has them. Raises BodyError."""
    return finish(scan_in_turns(raw, api))


def scan_in_turns(raw: bytes, api: Api) -> Turns[Body]:
    """Scan a body; the largest turn is the walk through its values."""
    is_usual = api.request[: len(OTHER.request)] == OTHER.request and not api.has_resource_names
    if simdjson is not None and len(raw) <= _MAX_QUICK_BYTES and is_usual:
        if is_sparse(raw):
            parser = _parsers.for_size(len(raw))
        else:
            yield from _check_growth(raw)
            is_dense = len(raw) > _MAX_DENSE_BYTES and raw.count(b",") > len(raw) // _DENSE
            parser = None if is_dense else simdjson.Parser()
        if parser is not None and (body := _quickly_scanned(raw, api, parser)):
            return body
    yield from _check_growth(raw)
    body = _walked(raw, api)
    if len(raw) > SMALL_TEXT:
        yield
    return body


def _check_growth(raw: bytes) -> Turns[None]:
    if (yield from is_overgrown_in_turns(raw)):
        raise OvergrownError(Reason.OVERGROWN)


def _quickly_scanned(raw: bytes, api: Api, parser: Any) -> Body | None:
    """Return the body if simdjson accepts it; otherwise the walk decides and names the fault."""
    try:
        top = parser.parse(raw)
        if not isinstance(top, simdjson.Object) or len(top) > MAX_MEMBERS:
            return None
        keys = frozenset(top)
        model = top[_MODEL] if _MODEL in keys else None
        is_plain = len(keys) == len(top) and (model is None or _is_short_name(model))
        is_plain = is_plain and not _names_more(top, keys, api)
        session = session_in_body({key: _small(top[key]) for key in SESSION_KEYS if key in keys})
    except Exception:
        # Any fault. The walk raises its error without a cause: such exceptions may contain the whole body.
        return None
    return Body(raw, () if model is None else (model,), keys, session) if is_plain else None


def _is_short_name(value: Any) -> bool:
    """Return whether a value is a name of a model with few enough characters, whatever their bytes."""
    return isinstance(value, str) and len(value) <= MAX_NAME_BYTES // 4


def _names_more(top: Any, keys: frozenset[str], api: Api) -> bool:
    """Return whether the walk would find a model, or a fault, beside the top-level model."""
    if len(api.request) == len(OTHER.request):
        return False
    below = tree_of(api.request).below
    return any(_names_model(top[key], below[key]) for key in keys & below.keys() if key != _MODEL)


def _names_model(value: Any, node: PlaceNode) -> bool:
    if node.is_model:
        return True
    if isinstance(value, simdjson.Object) and None not in node.below:
        return any(key in value and _names_model(value[key], below) for key, below in node.below.items())
    if isinstance(value, simdjson.Array) and None in node.below:
        return any(_names_model(each, node.below[None]) for each in value)
    return isinstance(value, simdjson.Object | simdjson.Array)


def _small(value: Any) -> Any:
    """Return a simdjson object as a dictionary, unless it has too many members to name a session."""
    is_small = isinstance(value, simdjson.Object) and len(value) <= _MAX_METADATA
    return {key: value[key] for key in value} if is_small else value


def _walked(raw: bytes, api: Api) -> Body:
    """Return the body with its layout."""
    # No cause is kept anywhere here: these exceptions contain the whole body.
    try:
        return _walk(raw, raw.decode(), api)
    except UnicodeDecodeError:
        raise BodyError(Reason.NOT_UTF8) from None
    except (json.JSONDecodeError, StopIteration):
        raise BodyError(Reason.NOT_JSON) from None
    except RecursionError:
        raise BodyError(Reason.TOO_DEEP) from None
    except BodyError:
        raise
    except ValueError:
        # Python refuses numbers of more than 4300 digits, as converting them takes quadratic time.
        raise BodyError(Reason.TOO_MANY_DIGITS) from None


def _walk(raw: bytes, text: str, api: Api) -> Body:
    opening = skip_blanks(text, 1 if text.startswith("\ufeff") else 0)
    if text[opening : opening + 1] != "{":
        _expect_end(text, value_end(text, opening))
        raise BodyError(Reason.NOT_AN_OBJECT)
    finder = Finder(text, api)
    visit = finder.members_of(tree_of(api.request), may_be_null=True)
    members, closing = Walker(MAX_MEMBERS).members(text, opening, visit)
    _expect_end(text, closing + 1)
    keys = frozenset(str(member.key) for member in members)
    spans = [(member.value, member.end) for member in members if member.key == _MODEL]
    own = [found for found in finder.found for start, end in spans if start <= found[0] < end]
    models = distinct([found[2] for found in chain(own, finder.found)])
    if len(own) == len(finder.found) and not api.has_resource_names:
        api = OTHER  # the edits need not look further
    layout = Layout(text, members, (opening, closing), tuple(finder.found))
    return Body(raw, models, keys, session_in_body(_naming_session(layout)), api, layout)


def _naming_session(layout: Layout) -> dict[str, Any]:
    """Return the short members that may name a session."""
    return {
        str(each.key): json.loads(layout.text[each.value : each.end])
        for each in layout.members
        if each.key in SESSION_KEYS and each.end - each.value <= _MAX_METADATA_TEXT
    }


def _expect_end(text: str, at: int) -> None:
    if skip_blanks(text, at) != len(text):
        raise BodyError(Reason.NOT_JSON)


def layout_of(body: Body) -> Layout:
    """Return the positions of a body's parts, computed once. Raises BodyError if only simdjson can read it."""
    if body.layout is None:
        finish(_check_growth(body.raw))
        body.layout = _walked(body.raw, body.api).layout
    assert body.layout
    return body.layout


# --- bodies that are not JSON ---

OTHER_TYPES = ("multipart/", "audio/", "image/", "video/", "application/sdp", "application/octet-stream",
                "application/x-www-form-urlencoded")  # fmt: skip
UTF16_AND_32 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)
_first_byte = re.compile(rb"(?:\xef\xbb\xbf)?[ \t\n\r\x0b\x0c]*([{\[])?").match


def is_json(content_type: str, raw: bytes) -> bool:
    """Return False for a body of a type that is not JSON, unless it looks like JSON all the same."""
    if not content_type.strip().lower().startswith(OTHER_TYPES):
        return True
    found = _first_byte(raw)
    return bool(found and found[1]) or raw.startswith(UTF16_AND_32)
