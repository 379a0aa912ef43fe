"""Rules that Envoy cannot apply: each is a problem with its place, never a silent loss."""

from collections.abc import Iterator

from ..rules.fields import CREDENTIAL_REFERENCE
from ..rules.problems import Loc, Mistake, Problem, in_file_order
from ..rules.ruleset import RuleSet
from ..rules.schema import Rule
from ..rules.suspicions import is_key_place, is_literal_key
from .export_options import Options

# Envoy removes or overwrites these before it tries a route.
_ENVOYS_OWN = (
    "connection", "keep-alive", "proxy-connection", "transfer-encoding", "te", "upgrade", "x-forwarded-proto",
)  # fmt: skip
# The addon never removes these, and Envoy would.
_KEPT = ("content-length", "trailer")
_BETA = "anthropic-beta"
# The place of a problem inside a rule, and the end of the sentence that begins with the rule's name.
_Found = Iterator[tuple[Loc, str]]


def find_unsupported(ruleset: RuleSet, options: Options) -> list[Problem]:
    """Return the problems of an export, in file order."""
    return in_file_order(
        ruleset.problem(Mistake(loc, f'rule "{rule.name}" {text}').below(("rules", number)))
        for number, rule in enumerate(ruleset.rules)
        for loc, text in _in_rule(rule, ruleset, options)
    )


def _in_rule(rule: Rule, ruleset: RuleSet, options: Options) -> _Found:
    if not any(rule in ruleset.on_host(listener.host, listener.host_port) for listener in options.listeners):
        yield ("match", "host"), 'matches a host that no listener serves; expected "--listen PORT=HOST"'
    if rule.upstream == "demo":
        yield ("upstream",), 'has the upstream "demo", which runs in mitmproxy alone; expected "https://…"'
    if rule.signs:
        yield ("auth", "scheme"), 'has scheme "sigv4", which this export cannot sign with'
    yield from _matched_headers(rule)
    yield from _removed_headers(rule)
    yield from _written_values(rule)


def _matched_headers(rule: Rule) -> _Found:
    for header in rule.match.header or {}:
        if header.lower() in _ENVOYS_OWN or header.lower().startswith("x-envoy-"):
            text = f'matches the header "{header}", which Envoy removes before it chooses a rule'
            yield ("match", "header", header), text


def _removed_headers(rule: Rule) -> _Found:
    for number, glob in enumerate(rule.headers.remove):
        for header in filter(glob.covers, _KEPT):
            text = f'removes "{header}" by a pattern, which must stay; expected a narrower pattern'
            yield ("headers", "remove", number), text
    is_set = any(name.lower() == _BETA for name in (*rule.headers.set, *rule.headers.add))
    if rule.beta and (is_set or any(glob.covers(_BETA) for glob in rule.headers.remove)):
        yield ("beta",), f'edits "{_BETA}" both here and in "headers"; expected it here only'


def _written_values(rule: Rule) -> _Found:
    for loc, value in rule.written:
        part, edit, name = loc
        names = CREDENTIAL_REFERENCE.findall(value)
        if part == "headers" and name.lower().startswith("x-envoy-"):
            yield loc, f'sets "{name}", which Envoy obeys itself'
        if is_key_place(*loc) and is_literal_key(value):
            yield (
                loc,
                f'sets "{name}" to a key, which the export would contain; expected "${{credential:NAME}}"',
            )
        if names and part == "query":
            yield (
                loc,
                'puts a credential into the query, which Envoy cannot write; expected it under "headers"',
            )
        elif names and (edit == "add" or len(names) > 1 or not value.endswith("}")):
            fault = f'puts a credential into "{name}" in a form that Envoy cannot write'
            yield loc, f'{fault}; expected it under "set", once, at the end of the value'
