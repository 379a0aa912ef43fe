"""Rules as Envoy's routes, in file order. The Lua filter names the rule it finds behind a route by `rule`."""

from __future__ import annotations

import json
import re
from typing import Any

from ..matching import RuleSet
from ..refusals import Refusal
from ..respond import listed_models, model_list, one_model
from ..schema import Rule
from .options import Listener, Options
from .patterns import model_regex, path_regex, value_regex
from .script import destination

PATH, MODEL = "x-mitm-gateway-path", "x-mitm-gateway-model"
LUA = "mitm_gateway"
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
            "routes": _routes(ruleset, listener),
        },
        {"name": "others", "domains": ["*"], "routes": _refusals(WRONG_HOST)},
    ]


def _routes(ruleset: RuleSet, listener: Listener) -> list[Route]:
    rules = ruleset.on_host(listener.host, listener.host_port)
    routes: list[Route] = []
    if any(rule.respond.head for rule in rules):
        routes.append(_answer(200, "", [_exact(":method", "HEAD")]))
    for number, rule in enumerate(ruleset.rules, start=1):
        if rule in rules:
            routes += _rule_routes(number, rule, ruleset, listener)
    if ruleset.unmatched == "pass":
        return [*routes, _pass(listener), *_refusals(BLOCKED)]
    return [*routes, *_refusals(BLOCKED)]


def _rule_routes(number: int, rule: Rule, ruleset: RuleSet, listener: Listener) -> list[Route]:
    conditions = _conditions(rule)
    if rule.match.model is None:
        return [*_model_answers(rule, ruleset, conditions), _forward(number, rule, listener, conditions)]
    asking = _forward(number, rule, listener, [*conditions, _is_present(MODEL, present=False)])
    asking["metadata"]["filter_metadata"][LUA]["needs_model"] = True
    conditions.append(_regex(MODEL, model_regex(rule.match.model)))
    return [
        asking,
        *_model_answers(rule, ruleset, conditions),
        _forward(number, rule, listener, conditions),
    ]


def _conditions(rule: Rule) -> list[Route]:
    match = rule.match
    conditions: list[Route] = [_is_present(PATH, present=True)]  # without the filter nothing is forwarded
    if match.path is not None:
        conditions.append(_regex(PATH, path_regex(match.path)))
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


def _forward(number: int, rule: Rule, listener: Listener, conditions: list[Route]) -> Route:
    place = destination(rule, listener)
    return {
        "name": rule.name,
        "match": {"prefix": "/", "headers": conditions},
        "metadata": {"filter_metadata": {LUA: {"rule": number, "upstream": str(place)}}},
        "route": {"cluster": cluster_name(number), "host_rewrite_literal": place.authority, **_PATIENCE},
    }


# No limit for the whole: an answer may stream for long. What says nothing for ten minutes is over.
_PATIENCE = {"timeout": "0s", "idle_timeout": "600s"}


def _pass(listener: Listener) -> Route:
    return {
        "name": "unmatched",
        "match": {"prefix": "/", "headers": [_is_present(PATH, present=True)]},
        "route": {"cluster": PASS_CLUSTER, "host_rewrite_literal": listener.authority, **_PATIENCE},
    }


def _model_answers(rule: Rule, ruleset: RuleSet, conditions: list[Route]) -> list[Route]:
    if not rule.respond.models:
        return []
    names = listed_models(rule, ruleset)
    asked = [*conditions, _regex(":method", "(?i:GET)")]
    single = [
        _json(one_model(name), [*asked, _regex(PATH, ".*/models/" + re.escape(name) + "/*")])
        for name in names
        if "/" not in name
    ]
    return [_json(model_list(names), [*asked, _regex(PATH, ".*/models/*")]), *single]


def _json(data: object, conditions: list[Route]) -> Route:
    return _answer(200, json.dumps(data, ensure_ascii=False), conditions)


def _refusals(refusal: Refusal) -> list[Route]:
    return [
        _answer(
            refusal.status,
            refusal.body("/v1/responses").decode(),
            [_regex(":path", OPENAI_REGEX)],
            retry=False,
        ),
        _answer(refusal.status, refusal.body("/").decode(), [], retry=False),
    ]


def _answer(status: int, body: str, conditions: list[Route], *, retry: bool = True) -> Route:
    fields = {"content-type": "application/json"} | ({} if retry else {"x-should-retry": "false"})
    route: Route = {
        "match": {"prefix": "/", "headers": conditions},
        "direct_response": {"status": status, **({"body": {"inline_string": body}} if body else {})},
        "response_headers_to_add": [
            {"header": {"key": name, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
            for name, value in fields.items()
        ],
    }
    return route


def _regex(name: str, regex: str) -> Route:
    return {"name": name, "string_match": {"safe_regex": {"regex": regex}}}


def _exact(name: str, value: str) -> Route:
    return {"name": name, "string_match": {"exact": value}}


def _is_present(name: str, *, present: bool) -> Route:
    return {"name": name, "present_match": present}
