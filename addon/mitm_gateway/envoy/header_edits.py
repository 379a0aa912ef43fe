"""What Envoy edits by itself, on the way from a route to its upstream: headers, base path, names of clients' keys."""

from __future__ import annotations

import re
from typing import Any

from ..rules.schema import CLIENT, CREDENTIAL_REFERENCE, Rule
from ..text.redact import KEY_ENDINGS, KEY_NAMES
from ..wire.addresses import Upstream
from .lua_filter import KEY, auth_header, auth_of, version_of
from .options import Listener, Options
from .re2 import header_regex

MUTATION = "header_mutation"
_PER_ROUTE = "type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutationPerRoute"
# Lenient servers compare the letters and digits of a name alone; Envoy has names in lower case.
_ANY_SPELLING = "[^0-9a-z]*"


def path_edit(place: Upstream) -> dict[str, Any]:
    """Puts the upstream's base path in front, and no version segment twice."""
    if not place.base:
        return {}
    version = version_of(place.base)
    if version is None:
        return {"prefix_rewrite": f"{place.base}/"}
    text = place.base.replace("\\", r"\\")
    pattern = {"regex": f"^(?:{re.escape(version)})?(/.*)?$"}
    return {"regex_rewrite": {"pattern": pattern, "substitution": rf"{text}\1"}}


def removals(rule: Rule, listener: Listener, *, is_page: bool) -> dict[str, Any]:
    """The names that go by pattern: from the request what the rule takes out, from the answer what pages may not see.

    The answer of a rule that puts in a credential is not for web pages, unless their origin is listed.
    """
    names = [header_regex(glob.text) for glob in rule.headers.remove]
    if auth_of(rule, listener).scheme != "keep":
        names += [_in_any_spelling(name) for name in sorted(KEY_NAMES)]
        names += [f".*{_in_any_spelling(ending)}" for ending in KEY_ENDINGS]
    mutations = {}
    if names:
        mutations["request_mutations"] = [_remove({"safe_regex": {"regex": "|".join(names)}})]
    if rule.credential_names and not is_page:
        mutations["response_mutations"] = [_remove({"prefix": "access-control-"})]
    return {MUTATION: {"@type": _PER_ROUTE, "mutations": mutations}} if mutations else {}


def _in_any_spelling(name: str) -> str:
    return _ANY_SPELLING.join(["", *name, ""])


def _remove(names: dict[str, Any]) -> dict[str, Any]:
    return {"remove_on_match": {"key_matcher": names}}


def headers_put_in(rule: Rule, listener: Listener, options: Options) -> list[dict[str, Any]]:
    """The headers of a rule, but for its credentials, which come last of all: the cluster puts them in."""
    fields = [
        _field(name, _literal(value))
        for name, value in rule.headers.set.items()
        if not CREDENTIAL_REFERENCE.search(value)
    ]
    fields += [
        _field(name, _literal(value), "APPEND_IF_EXISTS_OR_ADD") for name, value in rule.headers.add.items()
    ]
    if options.tokens or (rule.models and rule.models.restore):
        # The answer is read, and its model's name edited, as it streams by: a compressed one cannot be.
        fields.append(_field("accept-encoding", "identity", "OVERWRITE_IF_EXISTS"))
    auth = auth_of(rule, listener)
    if auth.credential == CLIENT:
        header, prefix = auth_header(auth)
        fields.append(_field(header, f"{_literal(prefix)}%REQ({KEY})%"))
    return fields


def _field(name: str, value: str, action: str = "OVERWRITE_IF_EXISTS_OR_ADD") -> dict[str, Any]:
    return {"header": {"key": name, "value": value}, "append_action": action}


def _literal(text: str) -> str:
    return text.replace("%", "%%")
