"""Rules as Envoy's routes, in file order. The Lua filter finds in a route's metadata what it has to do.

A request that is plain in every respect, to a rule that Envoy can carry out by itself, needs no filter: such a rule
has one more route in front of its own, whose conditions are sufficient and not necessary.
"""

from __future__ import annotations

import json
import re
from typing import Any

from ..exchange.local_answers import listed_models, model_list, one_model
from ..llm.errors import error_body
from ..rules.ruleset import RuleSet
from ..rules.schema import CLIENT, Rule
from ..wire.refusal import Refusal
from .header_edits import headers_put_in, path_edit, removals
from .lua_filter import LUA, MODEL, PATH, RULE, auth_of, destination
from .options import Listener, Options
from .re2 import model_regex, path_regex, value_regex

GATE = "gate"
PASS_CLUSTER = "target"
# Those of `refusals`, in the form of a path with or without a query.
OPENAI_REGEX = (
    r"/(?:[^?]*/)?(?:chat/completions|completions|responses|embeddings|images|audio|moderations)(?:[/?].*)?"
)
BLOCKED = Refusal(404, "no rule matches this request, and unmatched requests are blocked")
WRONG_HOST = Refusal(
    421, "the Host header does not name this listener; list further names with --gateway-host"
)

Route = dict[str, Any]


def virtual_hosts(ruleset: RuleSet, listener: Listener, options: Options) -> list[dict[str, Any]]:
    """The names that a listener answers to with its rules, and 421 for all others."""
    names = ["localhost", "127.0.0.1", "[::1]", listener.host, *options.hosts]
    if listener.address not in ("0.0.0.0", "::"):
        names.append(f"[{listener.address}]" if ":" in listener.address else listener.address)
    ours = list(dict.fromkeys(names))
    return [
        {
            "name": "rules",
            "domains": [domain for name in ours for domain in (name, f"{name}:*")],
            "request_body_buffer_limit": options.body_limit,
            "routes": _routes(ruleset, listener, options),
        },
        {"name": "others", "domains": ["*"], "routes": _refusals(WRONG_HOST)},
    ]


def _routes(ruleset: RuleSet, listener: Listener, options: Options) -> list[Route]:
    rules = ruleset.on_host(listener.host, listener.host_port)
    routes = [_encoded_path()]
    if any(rule.respond.head for rule in rules):
        routes.append(_answer(200, "", [_exact(":method", "HEAD")]))
    for number, rule in enumerate(ruleset.rules, start=1):
        if rule in rules:
            routes += _rule_routes(number, rule, ruleset, listener, options)
    if ruleset.unmatched == "pass":
        routes += _with_plain(_pass(listener), options, strips=False)
    return [*routes, *_refusals(BLOCKED)]


def _encoded_path() -> Route:
    """Rules are matched on a path in normal form, which only the filter can give."""
    conditions = [_regex(":path", r"[^?]*%.*"), _is_present(PATH, present=False)]
    return _answer(500, "", conditions)


def _rule_routes(
    number: int, rule: Rule, ruleset: RuleSet, listener: Listener, options: Options
) -> list[Route]:
    conditions = _conditions(rule)
    routes: list[Route] = []
    if rule.match.model is not None:
        routes.append(_answer(500, "", [*conditions, _is_present(MODEL, present=False)], asks=number))
        conditions.append(_regex(MODEL, model_regex(rule.match.model)))
    routes += _model_answers(rule, ruleset, conditions)
    if options.origins:
        # A page whose origin is not listed does not get past the filter.
        routes.append(
            _forward(
                number,
                rule,
                listener,
                options,
                [*conditions, _is_present("origin", present=True)],
                is_page=True,
            )
        )
    own = _forward(number, rule, listener, options, conditions)
    if _needs_filter(rule, listener) or options.tokens:
        return [*routes, own]
    return [*routes, *_with_plain(own, options, strips=auth_of(rule, listener).scheme != "keep")]


def _needs_filter(rule: Rule, listener: Listener) -> bool:
    return rule.reads_body or auth_of(rule, listener).credential == CLIENT


# Such a path is in normal form, short, and has no odd segments; such a query has nothing encoded.
_PLAIN_TARGET = r"(?:/[\w~:@!$&'()*+,=-][\w.~:@!$&'()*+,=-]{0,63}){1,12}/?(?:\?[\w.~:@!$'()*,;=/&-]{0,255})?"
# A path that may name a model, or a query with what may be a client's key, however it is spelt.
_NOTEWORTHY_TARGET = r".*(?:/(?:models?|deployments)/|\?.*(?i:k[-_]*e[-_]*y|t[-_]*o[-_]*k[-_]*e[-_]*n)).*"


def _with_plain(route: Route, options: Options, *, strips: bool) -> list[Route]:
    """A route, and before it one without the filter for requests in which the filter would find nothing to do."""
    if options.clients:
        return [route]
    too_large = {"range_match": {"start": options.body_limit + 1, "end": 2**63 - 1}, "invert_match": True}
    plain = [
        # What the filter has begun with, it finishes with.
        _is_present(PATH, present=False),
        _is_present(MODEL, present=False),
        _regex(":path", _PLAIN_TARGET),
        _regex(":path", _NOTEWORTHY_TARGET) | {"invert_match": True},
        _regex(":method", "(?i:trac[ek])") | {"invert_match": True},
        {"name": "content-length", "treat_missing_header_as_empty": True, **too_large},
        _is_present("origin", present=False),
        _is_present("sec-fetch-site", present=False),
        *([_is_present("sec-websocket-protocol", present=False)] if strips else []),
    ]
    without = {"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "disabled": True}
    match = route["match"] | {"headers": [*route["match"]["headers"], *plain]}
    filters = route.get("typed_per_filter_config", {}) | {LUA: without, GATE: without}
    return [route | {"match": match, "typed_per_filter_config": filters}, route]


def _conditions(rule: Rule) -> list[Route]:
    match = rule.match
    conditions: list[Route] = []
    if match.path is not None:
        conditions.append(_regex(":path", path_regex(match.path)))
    if match.method is not None:
        conditions.append(_regex(":method", "(?i:" + "|".join(map(re.escape, match.method)) + ")"))
    for name, wanted in (match.header or {}).items():
        if isinstance(wanted, bool):
            conditions.append(_is_present(name.lower(), present=wanted))
        else:
            conditions.append(_regex(name.lower(), value_regex(wanted)))
    return conditions


def cluster_name(number: int) -> str:
    """The name of the cluster of a rule, counted from 1."""
    return f"rule-{number}"


def _forward(
    number: int,
    rule: Rule,
    listener: Listener,
    options: Options,
    conditions: list[Route],
    *,
    is_page: bool = False,
) -> Route:
    place = destination(rule, listener)
    gate = {"@type": "type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBACPerRoute"}
    filters = {
        GATE: gate | {"rbac": {"rules": gate_for(number)}},
        **removals(rule, listener, is_page=is_page),
    }
    return {
        "name": rule.name,
        "match": {"prefix": "/", "headers": conditions},
        "metadata": {"filter_metadata": {LUA: {RULE: number, "name": rule.name, "upstream": str(place)}}},
        "route": {
            "cluster": cluster_name(number),
            "host_rewrite_literal": place.authority,
            **path_edit(place),
            **_PATIENCE,
        },
        "request_headers_to_add": headers_put_in(rule, listener, options),
        "typed_per_filter_config": filters,
    }


def gate_for(number: int) -> dict[str, Any]:
    """Lets nothing pass that the Lua filter did not finish with for just this rule, whatever became of it."""
    noted = {"filter": LUA, "path": [{"key": RULE}], "value": {"double_match": {"exact": number}}}
    permission = {"sourced_metadata": {"metadata_matcher": noted}}
    return {
        "action": "ALLOW",
        "policies": {"done": {"permissions": [permission], "principals": [{"any": True}]}},
    }


# No limit for the whole: an answer may stream for long. What says nothing for ten minutes is over.
_PATIENCE = {"timeout": "0s", "idle_timeout": "600s"}


def _pass(listener: Listener) -> Route:
    return {
        "name": "unmatched",
        "match": {"prefix": "/", "headers": []},
        "route": {"cluster": PASS_CLUSTER, "host_rewrite_literal": listener.authority, **_PATIENCE},
    }


_END = r"/*(?:\?.*)?"


def _model_answers(rule: Rule, ruleset: RuleSet, conditions: list[Route]) -> list[Route]:
    if not rule.respond.models:
        return []
    names = listed_models(rule, ruleset)
    asked = [*conditions, _regex(":method", "(?i:GET)")]
    single = [
        _json(one_model(name), [*asked, _regex(":path", f"[^?]*/models/{re.escape(name)}{_END}")])
        for name in names
        if "/" not in name
    ]
    return [_json(model_list(names), [*asked, _regex(":path", f"[^?]*/models{_END}")]), *single]


def _json(data: object, conditions: list[Route]) -> Route:
    return _answer(200, json.dumps(data, ensure_ascii=False), conditions)


def _refusals(refusal: Refusal) -> list[Route]:
    return [
        _answer(
            refusal.status,
            error_body(refusal, "openai").decode(),
            [_regex(":path", OPENAI_REGEX)],
            retry=False,
        ),
        _answer(refusal.status, error_body(refusal, "anthropic").decode(), [], retry=False),
    ]


def _answer(
    status: int, body: str, conditions: list[Route], *, retry: bool = True, asks: int | None = None
) -> Route:
    fields = {"content-type": "application/json"} | ({} if retry else {"x-should-retry": "false"})
    return {
        "match": {"prefix": "/", "headers": conditions},
        **({"metadata": {"filter_metadata": {LUA: {"asks": asks}}}} if asks else {}),
        "direct_response": {"status": status, **({"body": {"inline_string": body}} if body else {})},
        "response_headers_to_add": [
            {"header": {"key": name, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
            for name, value in fields.items()
        ],
    }


def _regex(name: str, regex: str) -> Route:
    return {"name": name, "string_match": {"safe_regex": {"regex": regex}}}


def _exact(name: str, value: str) -> Route:
    return {"name": name, "string_match": {"exact": value}}


def _is_present(name: str, *, present: bool) -> Route:
    return {"name": name, "present_match": present}
