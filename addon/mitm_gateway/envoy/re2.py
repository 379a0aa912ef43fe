"""Globs as the regular expressions of RE2, which Envoy's routes are matched with."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import quote_from_bytes

from ..rules.patterns import Glob, PathGlob
from ..wire.request import raw

_STARS = re.compile(r"(\*+)")
_PLAIN = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) != "%")


def encoded(text: str) -> str:
    """A text as the Lua filter writes model names into a header: what is not plain ASCII percent-encoded."""
    return quote_from_bytes(raw(text), safe=_PLAIN)


def model_regex(globs: Iterable[Glob]) -> str:
    """What fits the header that names the model that the client asks for."""
    return "=(?:" + "|".join(_joined(encoded(glob.text), ".*", ".*") for glob in globs) + ")"


def value_regex(globs: Iterable[Glob]) -> str:
    """What fits a header's value; where a header came twice, Envoy joins the values without a blank."""
    return "|".join(_joined(glob.text, ".*", ".*").replace(r",\ ", r",\ ?") for glob in globs)


def path_regex(globs: Iterable[PathGlob]) -> str:
    """What fits a target, which is a path in normal form and maybe a query."""
    return "(?:" + "|".join(_joined(glob.text, "[^/?]*", "[^?]*") for glob in globs) + r")(?:\?.*)?"


def header_regex(glob: str) -> str:
    """What fits the names that a glob covers; none of HTTP/2's pseudo-headers is among them."""
    regex = _joined(glob, ".*", ".*")
    return "[^:]" + regex if regex.startswith(".*") else regex


def _joined(glob: str, star: str, stars: str) -> str:
    return "".join(
        (star if len(part) == 1 else stars) if part.startswith("*") else re.escape(part)
        for part in _STARS.split(glob)
    )
