"""Edits that Envoy makes between a route and its upstream: headers, base path, names of clients' keys."""

import re
from typing import Any

from ..rules.fields import CLIENT, CREDENTIAL_REFERENCE
from ..rules.schema import Rule
from ..text.redact import KEY_ENDINGS, KEY_NAMES
from ..wire.addresses import Upstream
from .export_options import Listener, Options
from .extension import typed
from .lua_constants import KEY
from .lua_filter import auth_on
from .re2 import any_spelling, header_regex

MUTATION = "header_mutation"
_PER_ROUTE = "extensions.filters.http.header_mutation.v3.HeaderMutationPerRoute"


def path_edit(place: Upstream) -> dict[str, Any]:
    """Return the edit that adds the upstream's base path, with no version segment twice."""
    if not place.base:
        return {}
    if not place.version:
        return {"prefix_rewrite": f"{place.base}/"}
    text = place.base.replace("\\", r"\\")
    pattern = {"regex": f"^(?:{re.escape(place.version)})?(/.*)?$"}
    return {"regex_rewrite": {"pattern": pattern, "substitution": rf"{text}\1"}}


def removals(rule: Rule, listener: Listener, *, is_page: bool) -> dict[str, Any]:
    """Return the header names that Envoy removes by pattern.

    The response of a rule with a credential is not for web pages, unless their origin is listed.
    """
    names = [header_regex(glob.text) for glob in rule.headers.remove]
    if auth_on(rule, listener).scheme != "keep":
        names += map(any_spelling, sorted(KEY_NAMES))
        names += [f".*{any_spelling(ending)}" for ending in KEY_ENDINGS]
    # Alt-Svc would lead the client to another port of the upstream, past the gateway.
    mutations = {"response_mutations": [removal({"exact": "alt-svc"})]}
    if names:
        mutations["request_mutations"] = [removal({"safe_regex": {"regex": "|".join(names)}})]
    if is_page:
        mutations["response_mutations"] += _page_headers()
    elif rule.credential_names:
        mutations["response_mutations"].append(removal({"prefix": "access-control-"}))
    return {MUTATION: typed(_PER_ROUTE, mutations=mutations)}


def removal(names: dict[str, Any]) -> dict[str, Any]:
    """Return the mutation that removes the headers of these names."""
    return {"remove_on_match": {"key_matcher": names}}


def headers_put_in(rule: Rule, listener: Listener, options: Options) -> list[dict[str, Any]]:
    """Return the headers that a route adds; the cluster adds credentials last."""
    fields = [
        _field(name, _literal(value))
        for name, value in rule.headers.set.items()
        if not CREDENTIAL_REFERENCE.search(value)
    ]
    fields += [
        _field(name, _literal(value), "APPEND_IF_EXISTS_OR_ADD") for name, value in rule.headers.add.items()
    ]
    if options.tokens or (rule.models and rule.models.restore):
        # A response is read and edited while it streams, which a compressed one does not allow.
        fields.append(_field("accept-encoding", "identity", "OVERWRITE_IF_EXISTS"))
    auth = auth_on(rule, listener)
    if auth.credential == CLIENT:
        header, prefix = auth.slot
        fields.append(_field(header, f"{_literal(prefix)}%REQ({KEY})%"))
    return fields


def for_pages() -> dict[str, Any]:
    """Return the configuration of a route whose own answer a page of a listed origin may read."""
    return {MUTATION: typed(_PER_ROUTE, mutations={"response_mutations": _page_headers()})}


def _page_headers() -> list[dict[str, Any]]:
    """Return the mutations that let a page of a listed origin read a response."""
    return [
        {"append": _field("access-control-allow-origin", "%REQ(origin)%", "ADD_IF_ABSENT")},
        {"append": _field("vary", "Origin", "APPEND_IF_EXISTS_OR_ADD")},
    ]


def _field(name: str, value: str, action: str = "OVERWRITE_IF_EXISTS_OR_ADD") -> dict[str, Any]:
    # Without the last key Envoy leaves out a header whose value is empty, and the client's would stay.
    field: dict[str, Any] = {"header": {"key": name, "value": value}, "append_action": action}
    return field if value else {**field, "keep_empty_value": True}


def _literal(text: str) -> str:
    return text.replace("%", "%%")
