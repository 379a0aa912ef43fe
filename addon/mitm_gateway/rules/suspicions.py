"""Valid rules that most likely differ from their author's intention."""

import re
from collections.abc import Iterator
from typing import Any

from ..text.redact import PLACEHOLDERS, is_key_header, is_key_parameter
from ..wire.addresses import Upstream, is_loopback
from .document import Document
from .fields import CREDENTIAL_REFERENCE
from .nodes import shown
from .problems import Loc, Mistake, Problem
from .ruleset import RuleSet
from .schema import Rule

# A variable as a shell writes it; text such as "$5" is not one.
_SHELL_VARIABLE = re.compile(r"(?<![\w$])\$[A-Z_][A-Z0-9_]{2,}\b")
# A path that clients use as the beginning of others.
_BASE_PATH = re.compile(r"(?:/v\d+(?:beta|alpha)?)?/?")

# The path of an endpoint, which an upstream's base path cannot end in: the path of the request follows it.
_ENDPOINT = re.compile(r"(?:/v\d[a-z0-9]*)?/(?:messages|chat/completions|completions|responses|embeddings)\Z")


# Shorter values of a key's header are words such as "test".
_SHORTEST_KEY = 6


def suspicions(ruleset: RuleSet) -> list[Problem]:
    """Return a warning for each part of the rules that looks like a mistake, with its position."""
    return [
        ruleset.problem(found)
        for number, rule in enumerate(ruleset.rules)
        for found in _of_rule(("rules", number), rule, ruleset.document)
    ]


def _of_rule(at: Loc, rule: Rule, document: Document | None) -> Iterator[Mistake]:
    yield from _matches(at, rule)
    yield from _endpoint(at, rule)
    yield from _no_key(at, rule)
    yield from _prefix(at, rule)
    yield from _variables(at, rule)
    yield from _literal_keys(at, rule, document)


def _matches(at: Loc, rule: Rule) -> Iterator[Mistake]:
    for host in rule.match.host:
        if host.is_exact and (host.name == "localhost" or is_loopback(host.name)):
            text = (
                f'rule "{rule.name}" matches this machine; expected the host of the API, '
                'such as "api.anthropic.com", even though clients connect to this machine'
            )
            yield Mistake((*at, "match", "host"), text)
    for path in rule.match.path or ():
        if _BASE_PATH.fullmatch(path.text):
            below = path.text.rstrip("/") + "/**"
            text = (
                f'rule "{rule.name}" matches the path "{path.text}" alone; "{below}" covers everything below'
            )
            yield Mistake((*at, "match", "path"), text)


def _endpoint(at: Loc, rule: Rule) -> Iterator[Mistake]:
    if isinstance(rule.upstream, Upstream) and (endpoint := _ENDPOINT.search(rule.upstream.base)):
        base = str(rule.upstream).removesuffix(endpoint[0])
        text = (
            f'upstream of rule "{rule.name}" ends in "{endpoint[0]}", and the path of each request is added to it; '
            f'expected the base URL "{base}"'
        )
        yield Mistake((*at, "upstream"), text)


def _no_key(at: Loc, rule: Rule) -> Iterator[Mistake]:
    """Yield an upstream on another host that gets neither a key of the gateway nor the client's."""
    upstream = rule.upstream
    if not isinstance(upstream, Upstream) or rule.auth is not None or _writes_key(rule):
        return
    if not any(host.covers(upstream.host, upstream.port) for host in rule.match.host):
        text = (
            f'rule "{rule.name}" sends no key to {upstream.host}; '
            'add "auth", or "auth: {scheme: none}" if that is intended'
        )
        yield Mistake((*at, "upstream"), text)


def _writes_key(rule: Rule) -> bool:
    names = (*rule.headers.set, *rule.headers.add)
    return bool(rule.inserted_credentials) or (
        any(map(is_key_header, names)) or any(map(is_key_parameter, rule.query.set))
    )


def _prefix(at: Loc, rule: Rule) -> Iterator[Mistake]:
    """Yield an auth scheme without the blank that separates it from the key."""
    prefix = rule.auth.prefix if rule.auth else None
    if prefix and prefix.lower() in ("bearer", "basic", "token"):
        text = f'the key of rule "{rule.name}" directly follows "{prefix}"; expected prefix: "{prefix} "'
        yield Mistake((*at, "auth", "prefix"), text)


def _variables(at: Loc, rule: Rule) -> Iterator[Mistake]:
    for part, values in (
        ("headers", rule.headers.set),
        ("headers", rule.headers.add),
        ("query", rule.query.set),
    ):
        for name, value in values.items():
            if _SHELL_VARIABLE.search(value):
                text = (
                    f'"{name}" of rule "{rule.name}" contains a "$" that is sent literally; '
                    'expected "${NAME}" for a variable'
                )
                yield Mistake((*at, part), text)


def _literal_keys(at: Loc, rule: Rule, document: Document | None) -> Iterator[Mistake]:
    """Yield keys that are in the file itself."""
    for part, edit, values, is_key in (
        ("headers", "set", rule.headers.set, is_key_header),
        ("headers", "add", rule.headers.add, is_key_header),
        ("query", "set", rule.query.set, is_key_parameter),
    ):
        for name, value in values.items():
            loc = (*at, part, edit, name)
            if is_key(name) and is_literal_key(value) and not _is_variable(document, loc):
                text = (
                    f'{shown(name)} of rule "{rule.name}" contains a key; a secret does not belong in this file, '
                    'use "${credential:NAME}"'
                )
                yield Mistake(loc, text, at_key=True)


def is_literal_key(value: str) -> bool:
    """Return whether the value of a header or parameter for keys is a key, not a credential or a placeholder."""
    key = value.split()[-1] if value.split() else ""
    return (
        not CREDENTIAL_REFERENCE.search(value)
        and key.lower() not in PLACEHOLDERS
        and len(key) >= _SHORTEST_KEY
    )


def _is_variable(document: Document | None, loc: Loc) -> bool:
    """Return whether the file contains an environment variable in place of the value."""
    data: Any = document.data if document else None
    try:
        for step in loc:
            data = data[step]
    except (KeyError, TypeError):  # the name, or a key before it, is written in another way
        return False
    return isinstance(data, str) and "${" in data
