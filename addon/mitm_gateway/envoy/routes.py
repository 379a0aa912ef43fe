"""Rules as Envoy's routes, in file order. A route's metadata holds the number of its rule, for the Lua filter.

A plain request to a rule that Envoy can apply by itself needs no filter: such a rule has one more route before its own,
whose conditions are sufficient and not necessary.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ..exchange.guard import HOST_IN_ORIGIN
from ..exchange.local_answers import listed_models, model_list, one_model
from ..exchange.plan import TOKEN_BETAS
from ..exchange.websocket import reads_messages
from ..llm.apis import Form
from ..llm.calls import form_on
from ..llm.errors import error_body, error_headers
from ..rules.fields import CLIENT
from ..rules.ruleset import RuleSet
from ..rules.schema import Rule
from ..text.redact import KEY_ENDINGS, KEY_MARKS, KEY_NAMES
from ..wire.refusal import Refusal
from ..wire.request import DOUBLED_PATH
from .access_log import KEPT
from .export_options import Listener, Options
from .extension import typed
from .header_edits import for_pages, headers_put_in, path_edit, removals
from .lua_constants import DONE, LUA, MODEL, PATH
from .lua_filter import auth_on, destination_on
from .re2 import MODEL_REGEX, any_spelling, form_regexes, model_regex, path_regex, segments_regex, value_regex
from .refusals import BLOCKED, NOT_GET, WRONG_HOST

GATE, NO_UPGRADE = "gate", "no-upgrade"
PASS_CLUSTER = "target"
# A client's key for a proxy (RFC 9110, 11.7.2), removed before the rule's own headers are added.
_FOR_PROXIES = ["proxy-authorization"]
_NO_RULE = -1
# The metadata of a route for pages, which adds `Vary` to the filter's answers too.
_PAGE: dict[str, Any] = {"is_page": True}
RULE = "rule"  # the metadata that hold the number of a rule

Route = dict[str, Any]
_FILTER = typed("config.route.v3.FilterConfig")
_OFF, _ON = _FILTER | {"disabled": True}, _FILTER | {"config": {}}
_JSON_TYPE = {"content-type": "application/json"}


def virtual_hosts(ruleset: RuleSet, listener: Listener, options: Options) -> list[dict[str, Any]]:
    """Return the names that a listener answers to with its rules, and 421 for all others."""
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
        {"name": "others", "domains": ["*"], "routes": _refusals(WRONG_HOST, listener.host)},
    ]


def _routes(ruleset: RuleSet, listener: Listener, options: Options) -> list[Route]:
    rules = ruleset.on_host(listener.host, listener.host_port)
    routes = [*_refusals(NOT_GET, listener.host, _other_upgrade()), *_with_pages([_other_path()], options)]
    probe = _with_pages([_answer(200, "", [_exact(":method", "HEAD")])], options)
    if any(rule.respond.head for rule in rules):
        routes += probe
    for number, rule in enumerate(ruleset.rules, start=1):
        if rule in rules:
            routes += _rule_routes(number, rule, ruleset, listener, options)
    if ruleset.unmatched == "pass":
        routes += _with_plain(_pass(listener, options), options, strips=False)
    else:
        routes += probe
    return [*routes, *_with_pages(_refusals(BLOCKED, listener.host), options)]


def _other_upgrade() -> list[Route]:
    """Return the conditions of an upgrade that is no GET: Envoy would relay its body like messages, without an end."""
    return [_is_present("upgrade", present=True), _exact(":method", "GET") | {"invert_match": True}]


def _other_path() -> Route:
    """Send a path that is not in normal form to the filter: rules match it in that form."""
    conditions = [_regex(":path", rf"[^?]*%.*|{re.escape(DOUBLED_PATH)}.*"), _is_present(PATH, present=False)]
    return _answer(500, "", conditions)


def _rule_routes(
    number: int, rule: Rule, ruleset: RuleSet, listener: Listener, options: Options
) -> list[Route]:
    conditions = _conditions(rule)
    routes: list[Route] = []
    if rule.match.model is not None:
        routes.append(_asking(number, [*conditions, _is_present(MODEL, present=False)]))
        conditions.append(_regex(MODEL, model_regex(rule.match.model)))
    routes += _with_pages(_model_answers(rule, ruleset, listener.host, conditions), options)
    if options.origins:
        page = [*conditions, *_of_listed_pages(options.origins)]
        routes += _with_upgrade(_forward(number, rule, listener, options, page, is_page=True))
    own = _forward(number, rule, listener, options, conditions)
    if reads_messages(rule):  # the filter refuses its upgrades
        return [*routes, own]
    edits_query = bool(rule.query.set or rule.query.remove)
    if rule.reads_body or auth_on(rule, listener).credential == CLIENT or edits_query or options.tokens:
        return [*routes, *_with_upgrade(own)]
    return [*routes, *_with_plain(own, options, strips=auth_on(rule, listener).scheme != "keep")]


def _of_listed_pages(origins: Sequence[str]) -> list[Route]:
    """Return the conditions of a request by a listed page; the filter refuses those of others."""
    listed = "|".join(
        f"{re.escape(origin[:-1])}{HOST_IN_ORIGIN.pattern}" if origin.endswith("//*") else re.escape(origin)
        for origin in origins
    )
    return [_regex("origin", f"(?i:{listed})/*")]


def _with_pages(routes: list[Route], options: Options) -> list[Route]:
    """Return routes with answers, and before each one for requests of listed pages."""
    if not options.origins:
        return routes
    more = {"metadata": {"filter_metadata": {LUA: _PAGE}}, "typed_per_filter_config": for_pages()}
    listed = _of_listed_pages(options.origins)
    return [
        each
        for route in routes
        for each in (
            route | {"match": route["match"] | {"headers": [*route["match"]["headers"], *listed]}} | more,
            route,
        )
    ]


def _with_upgrade(route: Route) -> list[Route]:
    """Return a route, and before it one for upgrades, whose upstream may switch protocols."""
    match = route["match"] | {"headers": [*route["match"]["headers"], _is_present("upgrade", present=True)]}
    filters = route.get("typed_per_filter_config", {}) | {NO_UPGRADE: _OFF}
    return [route | {"match": match, "typed_per_filter_config": filters}, route]


# A short path in normal form without odd segments, and a query without percent-encoding.
_PLAIN_TARGET = r"(?:/[\w~:@!$&'()*+,=-][\w.~:@!$&'()*+,=-]{0,63}){1,12}/?(?:\?[\w.~:@!$'()*,;=/&-]{0,255})?"
# A path that may name a model, a target with something like a key, or a query that may have a client's key in any
# spelling.
_KEY_NAMES = {*KEY_NAMES, *KEY_ENDINGS}
_KEY_PARTS = sorted(name for name in _KEY_NAMES if not any(part in name for part in _KEY_NAMES - {name}))
_NOTEWORTHY = (MODEL_REGEX, *KEY_MARKS, rf"\?.*(?i:{'|'.join(map(any_spelling, _KEY_PARTS))})")
_NOTEWORTHY_TARGET = f".*(?:{'|'.join(_NOTEWORTHY)}).*"


# A request without a key in a subprotocol, and without a beta that belongs to a stripped token.
_UNSTRIPPED = (
    {"name": "sec-websocket-protocol", "present_match": False},
    {
        "name": "anthropic-beta",
        "treat_missing_header_as_empty": True,
        "invert_match": True,
        "string_match": {"safe_regex": {"regex": f".*(?i:{TOKEN_BETAS}).*"}},
    },
)


def _with_plain(route: Route, options: Options, *, strips: bool) -> list[Route]:
    """Return a route, and before it one for upgrades, and one without the filter for requests that it would not change."""
    if options.clients:
        return _with_upgrade(route)
    too_large = {"range_match": {"start": options.body_limit + 1, "end": 2**63 - 1}, "invert_match": True}
    plain = [
        # A request that has been through the filter's first half needs its second one.
        _is_present(PATH, present=False),
        _is_present(MODEL, present=False),
        _regex(":path", _PLAIN_TARGET),
        _regex(":path", _NOTEWORTHY_TARGET) | {"invert_match": True},
        _regex(":method", "(?i:trac[ek])") | {"invert_match": True},
        {"name": "content-length", "treat_missing_header_as_empty": True, **too_large},
        _is_present("origin", present=False),
        _is_present("sec-fetch-site", present=False),
        *(_UNSTRIPPED if strips else ()),
    ]
    match = route["match"] | {"headers": [*route["match"]["headers"], *plain]}
    filters = route.get("typed_per_filter_config", {}) | {LUA: _OFF, GATE: _OFF, KEPT: _ON}
    upgrade, other = _with_upgrade(route)
    return [upgrade, route | {"match": match, "typed_per_filter_config": filters}, other]


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
    """Return the name of a rule's cluster; rules count from 1."""
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
    place = destination_on(rule, listener)
    filters = {GATE: _gate(number), **removals(rule, listener, is_page=is_page)}
    return {
        "name": rule.name,
        "match": {"prefix": "/", "headers": conditions},
        "metadata": {
            "filter_metadata": {LUA: {RULE: number, "upstream": str(place), **(_PAGE if is_page else {})}}
        },
        "route": {
            "cluster": cluster_name(number),
            "host_rewrite_literal": place.authority,
            **path_edit(place),
            **_PATIENCE,
        },
        "request_headers_to_remove": _FOR_PROXIES,
        "request_headers_to_add": headers_put_in(rule, listener, options),
        "typed_per_filter_config": filters,
    }


def _gate(number: int) -> Route:
    return typed("extensions.filters.http.rbac.v3.RBACPerRoute", rbac={"rules": gate_for(number)})


def gate_for(number: int) -> dict[str, Any]:
    """Return a gate that lets a request pass if the Lua filter has finished it for this rule."""
    permission = {"header": _exact(DONE, str(number))}
    return {
        "action": "ALLOW",
        "policies": {"done": {"permissions": [permission], "principals": [{"any": True}]}},
    }


# A response may stream for long; ten minutes without a byte end it.
_PATIENCE = {"timeout": "0s", "idle_timeout": "600s"}


def _pass(listener: Listener, options: Options) -> Route:
    cluster = options.named(PASS_CLUSTER, listener)
    return {
        "match": {"prefix": "/", "headers": []},
        "request_headers_to_remove": _FOR_PROXIES,
        "route": {"cluster": cluster, "host_rewrite_literal": listener.authority, **_PATIENCE},
    }


_END = r"/*(?:\?.*)?"


def _model_answers(rule: Rule, ruleset: RuleSet, host: str, conditions: list[Route]) -> list[Route]:
    if not rule.respond.models:
        return []
    names, form = listed_models(rule, ruleset), form_on(host)
    asked = [*conditions, _regex(":method", "(?i:GET)")]
    models = r"[^?]*(?i:/models)"
    single = [
        _json(one_model(name, form), [*asked, _regex(":path", f"{models}/{segments_regex(name)}{_END}")])
        for name in names
    ]
    return [_json(model_list(names, form), [*asked, _regex(":path", f"{models}{_END}")]), *single]


def _json(data: object, conditions: list[Route]) -> Route:
    return _answer(200, json.dumps(data, ensure_ascii=False), conditions)


def _refusals(refusal: Refusal, host: str, asked: Sequence[Route] = ()) -> list[Route]:
    """Return the routes that refuse requests with these conditions, in the error form of each API."""
    routes = []
    for form, conditions in form_conditions(host):
        body = error_body(refusal, form).decode()
        routes.append(_answer(refusal.status, body, [*asked, *conditions], error_headers(refusal, form)))
    return routes


def form_conditions(host: str) -> list[tuple[Form, list[Route]]]:
    """Return each error form with the conditions on a request's headers, in the order to try; the last has none."""
    found: list[tuple[Form, list[Route]]] = []
    for form, method, regex in form_regexes(host):
        found.append((form, [_regex(":path", regex), *([_exact(":method", method)] if method else [])]))
    return [*found, (form_on(host), [])]


def _answer(
    status: int, body: str, conditions: list[Route], headers: Mapping[str, str] = _JSON_TYPE
) -> Route:
    return {
        "match": {"prefix": "/", "headers": conditions},
        "direct_response": {"status": status, **({"body": {"inline_string": body}} if body else {})},
        "response_headers_to_add": headers_to_set(headers),
    }


def _asking(number: int, conditions: list[Route]) -> Route:
    """Return a route that asks the filter for the body's model. No request passes it: the gate refuses all.

    It has a cluster because Envoy applies the limit of bodies to such routes only.
    """
    return {
        "match": {"prefix": "/", "headers": conditions},
        "metadata": {"filter_metadata": {LUA: {"asks": number}}},
        "route": {"cluster": cluster_name(number)},
        "typed_per_filter_config": {GATE: _gate(_NO_RULE)},
    }


def headers_to_set(headers: Mapping[str, str]) -> list[Route]:
    """Return Envoy's form of headers that replace any of the same name."""
    return [
        {"header": {"key": name, "value": value}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
        for name, value in headers.items()
    ]


def _regex(name: str, regex: str) -> Route:
    return {"name": name, "string_match": {"safe_regex": {"regex": regex}}}


def _exact(name: str, value: str) -> Route:
    return {"name": name, "string_match": {"exact": value}}


def _is_present(name: str, *, present: bool) -> Route:
    return {"name": name, "present_match": present}
