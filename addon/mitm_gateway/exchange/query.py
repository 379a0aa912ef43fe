"""Query edits: parameters that a rule sets or removes; everything else stays byte for byte."""

import re
from collections.abc import Iterator, Mapping
from urllib.parse import quote, unquote_plus

from ..rules.edits import QueryEdits
from ..rules.fields import CREDENTIAL_REFERENCE
from ..text.redact import Secret

# Characters with no meaning between the parameters of a query.
_PLAIN = "/:,@"
_as_is = re.compile(rf"[A-Za-z0-9_.~{_PLAIN}-]*").fullmatch


def edited_target(target: str, query: QueryEdits, secrets: Mapping[str, Secret]) -> str:
    """Return a request target after remove and set; `secrets` are those that `set` names."""
    if not (query.set or query.remove):
        return target
    path, _, given = target.partition("?")
    wanted = {name: f"{encoded(name)}={encoded(filled(value, secrets))}" for name, value in query.set.items()}
    pairs = list(_edited(given.split("&") if given else [], query, wanted))
    return f"{path}?{'&'.join(pairs)}" if pairs else path


def encoded(text: str) -> str:
    """Return a name or value as it is written into a query."""
    return text if _as_is(text) else quote(text, safe=_PLAIN)


def _edited(pairs: list[str], query: QueryEdits, wanted: dict[str, str]) -> Iterator[str]:
    left = dict(wanted)
    for pair in pairs:
        name = unquote_plus(pair.partition("=")[0])
        if name in wanted:
            if name in left:  # in the position of the first of several
                yield left.pop(name)
        elif not any(glob.covers(name) for glob in query.remove):
            yield pair
    yield from left.values()


def filled(value: str, secrets: Mapping[str, Secret]) -> str:
    """Return the value of an edit with the secrets that it names."""
    return CREDENTIAL_REFERENCE.sub(lambda found: secrets[found[1]].reveal(), value)
