"""Shortcuts that build the core's values for tests."""

from typing import Any

from mitm_gateway.rules.ruleset import RuleSet
from mitm_gateway.rules.schema import Credential, Rule
from mitm_gateway.wire.request import RequestHead, as_bytes

BEARER = {"scheme": "bearer", "credential": "gw"}
CLIENT = {"scheme": "bearer", "credential": "client"}  # the key that the client sends


def make_rule(name: str = "r", host: Any = "api.anthropic.com", **keys: Any) -> Rule:
    """A rule from the keys of the file; `match` keys other than host in `match`."""
    match = {"host": host, **keys.pop("match", {})}
    return Rule.model_validate({"name": name, "match": match, **keys})


def make_ruleset(*rules: Rule, unmatched: str = "auto", credentials: Any = None) -> RuleSet:
    """A rule set of these rules."""
    named = {name: Credential.model_validate(source) for name, source in (credentials or {}).items()}
    return RuleSet(rules, named, unmatched)


def make_head(
    target: str = "/v1/messages",
    headers: dict[str, str] | list[tuple[str, str]] | None = None,
    *,
    method: str = "POST",
    host: str = "api.anthropic.com",
    port: int = 443,
    scheme: str = "https",
    authority: str = "",
    add_host: bool = True,
) -> RequestHead:
    """A request head, with a matching Host unless it has an authority or `add_host` is False."""
    pairs = list(headers.items()) if isinstance(headers, dict) else list(headers or [])
    if add_host and not authority and not any(name.lower() == "host" for name, _ in pairs):
        pairs.insert(0, ("Host", host if port in (80, 443) else f"{host}:{port}"))
    fields = tuple((as_bytes(name), as_bytes(value)) for name, value in pairs)
    return RequestHead(method, scheme, host, port, target, fields, authority)
