"""Valid rules that most likely do something else than their author means."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ..wire.addresses import Upstream, is_loopback
from .problems import Finding, Problem
from .ruleset import RuleSet
from .schema import Rule

# A variable as a shell writes it; text such as "$5" is not one.
_SHELL_VARIABLE = re.compile(r"(?<![\w$])\$[A-Z_][A-Z0-9_]{2,}\b")
# A path that clients use as the beginning of others.
_BASE_PATH = re.compile(r"(?:/v\d+(?:beta|alpha)?)?/?")

# The path of an endpoint, which an upstream's base path cannot end in: the path of the request follows it.
_ENDPOINT = re.compile(r"(?:/v\d[a-z0-9]*)?/(?:messages|chat/completions|completions|responses|embeddings)\Z")


def suspicions(ruleset: RuleSet) -> list[Problem]:
    """Return a warning for each part of the rules that looks like a mistake, with its position."""
    findings = (finding for number, rule in enumerate(ruleset.rules) for finding in _of_rule(number, rule))
    document = ruleset.document
    return [
        Problem(ruleset.file, document.pos(finding.loc) if document else None, finding.text)
        for finding in findings
    ]


def _of_rule(number: int, rule: Rule) -> Iterator[Finding]:
    at = ("rules", number)
    for host in rule.match.host:
        if host.is_exact and (host.name == "localhost" or is_loopback(host.name)):
            text = (
                f'rule "{rule.name}" matches this machine; expected the host that clients mean, '
                'such as "api.anthropic.com", even though they connect to this machine'
            )
            yield Finding((*at, "match", "host"), text)
    for path in rule.match.path or ():
        if _BASE_PATH.fullmatch(path.text):
            below = path.text.rstrip("/") + "/**"
            text = (
                f'rule "{rule.name}" matches the path "{path.text}" alone; "{below}" covers everything below'
            )
            yield Finding((*at, "match", "path"), text)
    if isinstance(rule.upstream, Upstream) and (endpoint := _ENDPOINT.search(rule.upstream.base)):
        base = str(rule.upstream).removesuffix(endpoint[0])
        text = (
            f'upstream of rule "{rule.name}" ends in "{endpoint[0]}", and the path of each request is added to it; '
            f'expected the base URL "{base}"'
        )
        yield Finding((*at, "upstream"), text)
    for part, values in (
        ("headers", rule.headers.set),
        ("headers", rule.headers.add),
        ("query", rule.query.set),
    ):
        for name, value in values.items():
            if _SHELL_VARIABLE.search(value):
                text = f'"{name}" of rule "{rule.name}" is sent with a "$" as it is; expected "${{NAME}}" for a variable'
                yield Finding((*at, part), text)
