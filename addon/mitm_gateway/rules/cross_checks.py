"""Faults between the parts of a rules file, each of which is valid by itself."""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from ..text.redact import normal_name
from ..wire import sigv4
from ..wire.addresses import Upstream
from .extras import installing
from .fields import CLIENT, CREDENTIAL_REFERENCE
from .model_map import NameTemplate, base_name
from .nodes import shown
from .patterns import Glob, HostPattern, PathGlob
from .problems import Loc, Mistake, Pos, did_you_mean
from .schema import Credential, Match, Rule

# Comparing two rules takes up to ten microseconds, and a reload holds up all requests. A file that needs more
# pairs was generated, and gets no report about rules that can never match.
_MAX_PAIRS = 100_000
_MAX_GLOBS = 200
_MOST_NAMES = 8

PositionOf = Callable[[Loc], Pos]


def check_rules(
    rules: Mapping[int, Rule], credentials: Mapping[str, Credential | None], pos: PositionOf
) -> Iterator[Mistake]:
    """Yield the faults between rules (by their position in the file) and credentials.

    A credential that is faulty itself is None: its name is known, and nothing else is checked.
    """
    for number, rule in rules.items():
        at: Loc = ("rules", number)
        yield from (found.below(at) for found in _in_rule(rule, credentials, partial(_pos_below, pos, at)))
    yield from _unreachable(rules, pos)


def _pos_below(pos: PositionOf, at: Loc, loc: Loc) -> Pos:
    return pos((*at, *loc))


def _in_rule(rule: Rule, credentials: Mapping[str, Credential | None], pos: PositionOf) -> Iterator[Mistake]:
    """Yield the faults of one rule; paths and positions are those in the rule."""
    yield from _credentials(rule, credentials)
    yield from _exposed(rule)
    yield from _model_targets(rule)
    yield from _second_keys(rule)
    yield from _repeated_headers(rule, pos)
    if rule.signs and not sigv4.is_available():
        text = f'scheme "sigv4" of rule "{rule.name}" {sigv4.MISSING}; {installing("aws")}'
        yield Mistake(("auth", "scheme"), text)
    yield from _unreachable_names(rule, pos)


def duplicate_names(rules: Sequence[object], pos: PositionOf) -> Iterator[Mistake]:
    """Yield the names that an earlier rule already has, in rules that are not validated yet."""
    first: dict[str, int] = {}
    for number, rule in enumerate(rules):
        name = rule.get("name") if isinstance(rule, dict) else None
        if isinstance(name, str) and first.setdefault(name, number) != number:
            line = pos(("rules", first[name], "name")).line
            text = f"duplicate rule name {shown(name)}; first defined on line {line}"
            yield Mistake(("rules", number, "name"), text)


def _credentials(rule: Rule, credentials: Mapping[str, Credential | None]) -> Iterator[Mistake]:
    for loc, name in _named_credentials(rule):
        if name == CLIENT:
            text = f'only "auth" can move the key of the client (in rule {shown(rule.name)})'
            yield Mistake(loc, f'{text}; expected a name under "credentials"')
        elif name not in credentials:
            known = [*credentials, CLIENT] if loc[0] == "auth" else [*credentials]
            hint = did_you_mean(name, known) or _known_credentials(credentials)
            yield Mistake(loc, f"unknown credential {shown(name)} in rule {shown(rule.name)}{hint}")
        elif (credential := credentials[name]) is not None:
            signs, is_of_aws = rule.signs and loc[0] == "auth", credential.aws is not None
            if is_of_aws and not signs:
                fault = f'signs requests; expected "scheme: sigv4" in rule {shown(rule.name)}'
                yield Mistake(loc, f"credential {shown(name)} {fault}")
            if signs and not is_of_aws:
                fault = 'cannot sign requests; expected one with "aws"'
                yield Mistake(loc, f"credential {shown(name)} {fault}")


def _known_credentials(credentials: Mapping[str, Credential | None]) -> str:
    names = ", ".join(shown(name) for name in list(credentials)[:_MOST_NAMES])
    if names:
        return f"; expected {'one of ' if len(credentials) > 1 else ''}{names}"
    return '; expected an entry of "credentials", as in NAME: {env: VARIABLE}'


def _named_credentials(rule: Rule) -> Iterator[tuple[Loc, str]]:
    if rule.auth and rule.auth.credential not in (None, CLIENT):
        yield ("auth", "credential"), rule.auth.credential or ""
    for loc, value in rule.written:
        for name in CREDENTIAL_REFERENCE.findall(value):
            yield loc, name


def _exposed(rule: Rule) -> Iterator[Mistake]:
    """Yield credentials that would reach a host of the client's choice, or a network that others read."""
    sends = bool(rule.credential_names) or (rule.auth is not None and rule.auth.credential == CLIENT)
    for place, host in enumerate(rule.match.host):
        if set(host.labels) <= {"*"} and rule.credential_names and rule.upstream is None:
            text = (
                f"host {shown(host.text)} would send a credential of rule {shown(rule.name)} to any host; "
                'expected an "upstream", or hosts by name'
            )
            yield Mistake(("match", "host", place), text)
    upstream = rule.upstream
    if isinstance(upstream, Upstream) and sends and not upstream.is_private and not rule.allow_http:
        text = (
            f'"upstream" of rule {shown(rule.name)} would send a credential over plain http; '
            f'expected {secured(upstream)}, or "allow_http: true" in the rule'
        )
        yield Mistake(("upstream",), text)


def secured(upstream: Upstream) -> str:
    """Return the form of a plain URL that a credential may be sent to; `localhost` can be any machine."""
    if upstream.host == "localhost":
        return f'"http://127.0.0.1:{upstream.port}{upstream.base}"'
    return '"https://…"'


# Query parameters that carry the same key as the header of a scheme, by normalised name.
_PARAMETERS = {
    "bearer": {"accesstoken", "bearertoken"},
    "token": {"accesstoken"},
    "x-goog-api-key": {"key"},
    "api-key": {"apikey"},
    "x-api-key": {"apikey"},
    "sigv4": {"xamzsignature", "xamzcredential", "xamzsecuritytoken"},
}


def _second_keys(rule: Rule) -> Iterator[Mistake]:
    """Yield headers and query parameters that would send the key of `auth` a second time."""
    if rule.auth is None or rule.auth.credential is None:
        return
    scheme, header, owner = rule.auth.scheme, rule.auth.header or "", f"rule {shown(rule.name)}"
    same = {normal_name(scheme), normal_name(header)} | _PARAMETERS.get(scheme, set())
    for loc, _ in rule.written:
        part, _, name = loc
        if part == "headers" and normal_name(name) == normal_name(header):
            cure = 'remove it here, or use "auth: {scheme: none}" to keep this value'
            yield Mistake(loc, f'"auth" of {owner} writes {header}; {cure}', at_key=True)
        elif part == "query" and normal_name(name) in same:
            text = f'{shown(name)} would be a second key beside "auth" of {owner}'
            cure = 'expected one of them (with "scheme: none" for a key in the query)'
            yield Mistake(loc, f"{text}; {cure}", at_key=True)


def _repeated_headers(rule: Rule, pos: PositionOf) -> Iterator[Mistake]:
    """Yield header names that differ from an earlier one in their case only."""
    for loc, names in (
        (("headers", "set"), rule.headers.set),
        (("match", "header"), rule.match.header or {}),
    ):
        first: dict[str, str] = {}
        for name in names:
            if (earlier := first.setdefault(name.lower(), name)) != name:
                line = pos((*loc, earlier)).line
                text = f"duplicate header {shown(name)}; first defined on line {line}, as {shown(earlier)}"
                yield Mistake((*loc, name), text, at_key=True)


def _model_targets(rule: Rule) -> Iterator[Mistake]:
    """Yield targets with captures that their pattern does not have."""
    if rule.models is None:
        return
    for pattern, target in rule.models.map.items():
        stars = len(re.findall(r"\*+", pattern))
        if wrong := [each for each in NameTemplate(target).captures if not 1 <= each <= stars]:
            count = {0: "no star", 1: "one star"}.get(stars, f"{stars} stars")
            text = (
                f"{shown(pattern)} has {{{wrong[0]}}} in its target, but {count} (in rule {shown(rule.name)})"
            )
            yield Mistake(("models", "map", pattern), text)
    if rule.models.default and NameTemplate(rule.models.default).captures:
        text = f'"default" has a capture, which only targets of "map" may have (in rule {shown(rule.name)})'
        yield Mistake(("models", "default"), text)


def _unreachable_names(rule: Rule, pos: PositionOf) -> Iterator[Mistake]:
    """Yield globs of a map whose names an earlier one takes. Those of a preset are not in the file."""
    if rule.models is None or rule.preset is not None:
        return
    loc = ("models", "map")
    globs = [glob for glob, _ in rule.models.names.globs][:_MAX_GLOBS]
    for place, glob in enumerate(globs):
        taker = next((each for each in globs[:place] if each.contains(glob)), None)
        if taker is not None:
            line = pos((*loc, taker.text)).line
            text = f"{shown(glob.text)} can never match: {shown(taker.text)} on line {line} takes its names first"
            yield Mistake((*loc, glob.text), f"{text} (in rule {shown(rule.name)})", at_key=True)


def _unreachable(rules: Mapping[int, Rule], pos: PositionOf) -> Iterator[Mistake]:
    earlier = _Earlier()
    pairs = 0
    for number, rule in rules.items():
        near = earlier.near(rule.match)
        pairs += len(near)
        if pairs > _MAX_PAIRS:
            return
        taker = next((each for each in near if takes_all(rules[each].match, rule.match)), None)
        if taker is not None:
            line = pos(("rules", taker)).line
            text = (
                f"rule {shown(rule.name)} can never match: rule {shown(rules[taker].name)} "
                f"on line {line} takes {shown(rule.match.host[0].text)} first"
            )
            yield Mistake(("rules", number), text)
        earlier.add(number, rule.match)


def takes_all(first: Match, second: Match) -> bool:
    """Return whether the first certainly matches every request that the second matches."""
    return (
        _covered(first.host, second.host)
        and _covered(first.path, second.path)
        and _methods_covered(first.method, second.method)
        and _models_covered(first.model, second.model)
        and _headers_covered(first, second)
    )


def _covered(first: Sequence[Any] | None, second: Sequence[Any] | None) -> bool:
    if first is None:
        return True
    return second is not None and all(any(mine.contains(each) for mine in first) for each in second)


def _models_covered(first: Sequence[Glob] | None, second: Sequence[Glob] | None) -> bool:
    """Return whether globs cover others; a name is also matched without its `[1m]`."""
    names = [[each, *([] if "*" in each.text else [Glob(base_name(each.text))])] for each in second or ()]
    return first is None or (
        second is not None
        and all(any(mine.contains(one) for mine in first for one in each) for each in names)
    )


def _methods_covered(first: tuple[str, ...] | None, second: tuple[str, ...] | None) -> bool:
    return first is None or (second is not None and set(second) <= set(first))


def _headers_covered(first: Match, second: Match) -> bool:
    if not first.header:
        return True
    theirs = {name.lower(): test for name, test in (second.header or {}).items()}
    return all(
        name.lower() in theirs and _test_covered(test, theirs[name.lower()])
        for name, test in first.header.items()
    )


def _test_covered(first: bool | tuple[Glob, ...], second: bool | tuple[Glob, ...]) -> bool:
    if isinstance(first, bool):
        return first == second or (first and not isinstance(second, bool))
    return not isinstance(second, bool) and _covered(first, second)


class _Earlier:
    """Earlier rules, indexed by host and literal beginning, which a rule that takes all of another must share.

    Without the index, ten thousand rules would be compared with each other.
    """

    def __init__(self) -> None:
        self._rules: dict[tuple[str, str, str], list[int]] = defaultdict(list)

    def add(self, number: int, match: Match) -> None:
        for host in match.host:
            name = host.name if host.is_exact else f"*{host.tail}"
            for kind, beginning in _beginnings(match):
                self._rules[name, kind, beginning].append(number)

    def near(self, match: Match) -> list[int]:
        """Return the rules that may take all of this one, in file order."""
        kinds = [("all", "")]
        if match.path:
            kinds += [("path", beginning) for beginning in _cuts(match.path[0].text)]
        if match.model:
            kinds += [("model", beginning) for beginning in _cuts(match.model[0].text)]
        names = _names(match.host[0])
        return sorted(
            {each for name in names for kind in kinds for each in self._rules.get((name, *kind), ())}
        )


def _names(host: HostPattern) -> list[str]:
    labels = host.tail.split(".") if host.tail else []
    tails = ["*" + ".".join(labels[place:]) for place in range(len(labels) + 1)]
    return [host.name, *tails] if host.is_exact else tails


def _beginnings(match: Match) -> list[tuple[str, str]]:
    patterns: Sequence[PathGlob | Glob]
    if match.path is not None:
        kind, patterns = "path", match.path
    elif match.model is not None:
        kind, patterns = "model", match.model
    else:
        return [("all", "")]
    return [(kind, pattern.text.partition("*")[0]) for pattern in patterns]


def _cuts(text: str) -> list[str]:
    return [text[:end] for end in range(min(len(text), 200) + 1)]
