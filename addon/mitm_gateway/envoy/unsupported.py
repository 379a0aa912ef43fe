"""Rules that Envoy cannot apply: each is a problem with its place, never a silent loss."""

from collections.abc import Iterator

from ..rules.fields import CREDENTIAL_REFERENCE
from ..rules.problems import Loc, Pos, Problem
from ..rules.ruleset import RuleSet
from ..rules.schema import Rule
from ..rules.suspicions import is_literal_key
from ..text.redact import is_key_header, is_key_parameter
from .export_options import Options

# Envoy removes or overwrites these before it tries a route.
_ENVOYS_OWN = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-connection",
        "transfer-encoding",
        "te",
        "upgrade",
        "x-forwarded-proto",
    }
)
# The addon never removes these, and Envoy would.
_KEPT = ("content-length", "trailer")
_BETA = "anthropic-beta"


def find_unsupported(ruleset: RuleSet, options: Options) -> tuple[Problem, ...]:
    """Return the problems of an export, in file order."""
    found = [
        found
        for number, rule in enumerate(ruleset.rules)
        for found in _in_rule(number, rule, ruleset, options)
    ]
    problems = [Problem(ruleset.file, _pos(ruleset, loc), text) for loc, text in found]
    return tuple(sorted(problems, key=lambda problem: problem.pos or Pos(0, 0)))


def _pos(ruleset: RuleSet, loc: Loc) -> Pos | None:
    return ruleset.document.pos(loc) if ruleset.document else None


def _in_rule(number: int, rule: Rule, ruleset: RuleSet, options: Options) -> Iterator[tuple[Loc, str]]:
    loc: Loc = ("rules", number)
    name = f'rule "{rule.name}"'
    if not any(rule in ruleset.on_host(listener.host, listener.host_port) for listener in options.listeners):
        yield (
            (*loc, "match", "host"),
            f'{name} matches a host that no listener serves; expected "--listen PORT=HOST"',
        )
    if rule.upstream == "demo":
        yield (
            (*loc, "upstream"),
            f'{name} has the upstream "demo", which runs in mitmproxy alone; expected "https://…"',
        )
    if rule.signs:
        yield (*loc, "auth", "scheme"), f'{name} has scheme "sigv4", which this export cannot sign with'
    yield from _matched_headers(loc, rule)
    yield from _removed_headers(loc, rule)
    yield from _edited_headers(loc, rule)
    yield from _query_secrets(loc, rule)


def _query_secrets(loc: Loc, rule: Rule) -> Iterator[tuple[Loc, str]]:
    for name, value in rule.query.set.items():
        if CREDENTIAL_REFERENCE.search(value):
            yield (
                (*loc, "query", "set", name),
                f'rule "{rule.name}" puts a credential into the query, which Envoy cannot write; '
                'expected it under "headers"',
            )
        elif is_key_parameter(name) and is_literal_key(value):
            yield (*loc, "query", "set", name), _holds_key(rule, name)


def _holds_key(rule: Rule, name: str) -> str:
    return f'rule "{rule.name}" sets "{name}" to a key, which the export would contain; expected "${{credential:NAME}}"'


def _matched_headers(loc: Loc, rule: Rule) -> Iterator[tuple[Loc, str]]:
    for header in rule.match.header or {}:
        if header.lower() in _ENVOYS_OWN or header.lower().startswith("x-envoy-"):
            yield (
                (*loc, "match", "header", header),
                f'rule "{rule.name}" matches the header "{header}", which Envoy removes before it chooses a rule',
            )


def _removed_headers(loc: Loc, rule: Rule) -> Iterator[tuple[Loc, str]]:
    for number, glob in enumerate(rule.headers.remove):
        for header in _KEPT:
            if glob.covers(header):
                yield (
                    (*loc, "headers", "remove", number),
                    f'rule "{rule.name}" removes "{header}" by a pattern, which must stay; '
                    "expected a narrower pattern",
                )
    is_set = any(name.lower() == _BETA for name in (*rule.headers.set, *rule.headers.add))
    if rule.beta and (is_set or any(glob.covers(_BETA) for glob in rule.headers.remove)):
        yield (
            (*loc, "beta"),
            f'rule "{rule.name}" edits "{_BETA}" both here and in "headers"; expected it here only',
        )


def _edited_headers(loc: Loc, rule: Rule) -> Iterator[tuple[Loc, str]]:
    for part, values in (("set", rule.headers.set), ("add", rule.headers.add)):
        for header, value in values.items():
            place = (*loc, "headers", part, header)
            if header.lower().startswith("x-envoy-"):
                yield place, f'rule "{rule.name}" sets "{header}", which Envoy obeys itself'
            if is_key_header(header) and is_literal_key(value):
                yield place, _holds_key(rule, header)
            names = CREDENTIAL_REFERENCE.findall(value)
            if names and (part == "add" or len(names) > 1 or not value.endswith("}")):
                yield (
                    place,
                    (
                        f'rule "{rule.name}" puts a credential into "{header}" in a form that Envoy cannot write; '
                        'expected it under "set", once, at the end of the value'
                    ),
                )
