"""Globs as RE2 expressions, which Envoy matches in linear time."""

import re
from collections.abc import Iterable, Iterator
from urllib.parse import quote_from_bytes

from ..llm.apis import Form
from ..llm.calls import ENDPOINTS, Endpoint, form_on, interleaved
from ..rules.patterns import Glob, PathGlob
from ..wire.request import as_bytes

_STARS = re.compile(r"(\*+)")
# Paths that may name a model.
MODEL_REGEX = rf"(?i:{'|'.join(sorted({re.escape(each.start) for each in ENDPOINTS if '(' in ''.join(each.wildcards)}))})"
_PLAIN = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) != "%")


def header_form(text: str) -> str:
    """Return a text as the Lua filter writes a model into a header: percent-encoded unless plain ASCII."""
    return quote_from_bytes(as_bytes(text), safe=_PLAIN)


def model_regex(globs: Iterable[Glob]) -> str:
    """Return the expression for the header that holds the model that the client asks for."""
    names = "|".join(_joined(header_form(glob.text), ".*", ".*") for glob in globs)
    return rf"=(?:{names})(?:\[1[mM]\])*"


def segments_regex(name: str) -> str:
    """Return the expression for a model's name in a path, whose slashes may be encoded."""
    return re.escape(name).replace("/", "(?:/|%2[fF])")


def any_spelling(name: str) -> str:
    """Return the expression for all spellings of a name; lenient servers compare letters and digits only."""
    return "[^0-9a-z]*".join(["", *map(re.escape, name), ""])


def value_regex(globs: Iterable[Glob]) -> str:
    """Return the expression for a header's value."""
    return "|".join(_joined(glob.text, ".*", ".*") for glob in globs)


def path_regex(globs: Iterable[PathGlob]) -> str:
    """Return the expression for a target: a path in normal form, maybe with a query."""
    return "(?:" + "|".join(_joined(glob.text, "[^/?]*", "[^?]*") for glob in globs) + r")(?:\?.*)?"


def form_regexes(host: str) -> Iterator[tuple[Form, str | None, str]]:
    """Yield each error form that differs from the host's, with the method and the targets of its endpoints."""
    groups: dict[tuple[Form, str | None], list[str]] = {}
    for endpoint in ENDPOINTS:
        form = endpoint.api.form or form_on(host)
        # One of the host's own form can hide one of another only where a method tells them apart.
        if form != form_on(host) or endpoint.method:
            groups.setdefault((form, endpoint.method), []).append(_endpoint_regex(endpoint))
    for (form, method), regexes in groups.items():
        yield form, method, rf"(?i)[^?]*(?:{'|'.join(regexes)})/*(?:\?.*)?"


def _endpoint_regex(endpoint: Endpoint) -> str:
    # `.` and classes that end at a slash must end at the query as well.
    wildcards = [mark.replace(".", "[^?]").replace("[^/", "[^?/") for mark in endpoint.wildcards]
    return interleaved(map(re.escape, endpoint.literals), wildcards)


def other_than(word: str) -> str:
    """Return the expression for every text but this word, in any case; RE2 cannot negate."""
    shorter = (f"{word[:size]}(?:[^{word[size]}].*)?" for size in range(len(word)))
    return f"(?is){'|'.join(shorter)}|{word}.+"


def header_regex(glob: str) -> str:
    """Return the expression for the header names that a glob covers, pseudo-headers excluded."""
    regex = _joined(glob, ".*", ".*")
    return "[^:]" + regex if regex.startswith(".*") else regex


def _joined(glob: str, star: str, stars: str) -> str:
    return "".join(
        (star if len(part) == 1 else stars) if part.startswith("*") else re.escape(part)
        for part in _STARS.split(glob)
    )
