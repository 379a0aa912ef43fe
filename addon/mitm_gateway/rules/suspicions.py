"""Valid rules that most likely differ from their author's intention."""

import re
from collections.abc import Iterator

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
        ruleset.problem(found.below(at))
        for at, rule in ((("rules", number), rule) for number, rule in enumerate(ruleset.rules))
        for found in (*_in_rule(rule), *_literal_keys(rule, at, ruleset.document))
    ]


def _in_rule(rule: Rule) -> Iterator[Mistake]:
    yield from _matches(rule)
    yield from _upstream(rule)
    prefix = rule.auth.prefix if rule.auth else None
    if prefix and prefix.lower() in ("bearer", "basic", "token"):
        text = f'the key of rule "{rule.name}" directly follows "{prefix}"; expected prefix: "{prefix} "'
        yield Mistake(("auth", "prefix"), text)
    for (part, _, name), value in rule.written:
        if _SHELL_VARIABLE.search(value):
            text = f'"{name}" of rule "{rule.name}" contains a "$" that is sent literally'
            yield Mistake((part,), f'{text}; expected "${{NAME}}" for a variable')


def _matches(rule: Rule) -> Iterator[Mistake]:
    for host in rule.match.host:
        if host.is_exact and (host.name == "localhost" or is_loopback(host.name)):
            text = (
                f'rule "{rule.name}" matches this machine; expected the host of the API, '
                'such as "api.anthropic.com", even though clients connect to this machine'
            )
            yield Mistake(("match", "host"), text)
    for path in rule.match.path or ():
        if _BASE_PATH.fullmatch(path.text):
            text = f'rule "{rule.name}" matches the path "{path.text}" alone'
            below = path.text.rstrip("/") + "/**"
            yield Mistake(("match", "path"), f'{text}; "{below}" covers everything below')


def _upstream(rule: Rule) -> Iterator[Mistake]:
    """Yield an upstream that ends in an endpoint, or one on another host that gets no key at all."""
    upstream = rule.upstream
    if not isinstance(upstream, Upstream):
        return
    if endpoint := _ENDPOINT.search(upstream.base):
        text = (
            f'upstream of rule "{rule.name}" ends in "{endpoint[0]}", and the path of each request is added to it; '
            f'expected the base URL "{str(upstream).removesuffix(endpoint[0])}"'
        )
        yield Mistake(("upstream",), text)
    writes_key = bool(rule.inserted_credentials) or any(is_key_place(*loc) for loc, _ in rule.written)
    is_own = any(host.covers(upstream.host, upstream.port) for host in rule.match.host)
    if rule.auth is None and not writes_key and not is_own:
        text = f'rule "{rule.name}" sends no key to {upstream.host}'
        yield Mistake(("upstream",), f'{text}; add "auth", or "auth: {{scheme: none}}" if that is intended')


def _literal_keys(rule: Rule, at: Loc, document: Document | None) -> Iterator[Mistake]:
    """Yield keys that are in the file itself."""
    for loc, value in rule.written:
        if is_key_place(*loc) and is_literal_key(value) and not _is_variable(document, (*at, *loc)):
            text = f'{shown(loc[-1])} of rule "{rule.name}" contains a key'
            cure = 'a secret does not belong in this file, use "${credential:NAME}"'
            yield Mistake(loc, f"{text}; {cure}", at_key=True)


def is_key_place(part: str, _edit: str, name: str) -> bool:
    """Return whether a header or parameter that a rule writes carries a key."""
    return is_key_parameter(name) if part == "query" else is_key_header(name)


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
    value = document.value(loc) if document else None
    return isinstance(value, str) and "${" in value
