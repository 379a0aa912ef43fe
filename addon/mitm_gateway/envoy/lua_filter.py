"""The Lua filter's text: the library, and one table of what the rules of a listener do."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from ..rules.field_paths import FieldPath
from ..rules.patterns import Glob
from ..rules.ruleset import RuleSet
from ..rules.schema import CLIENT, Auth, Beta, Models, Rule
from ..wire.addresses import Upstream
from .options import Listener, Options

LUA = "mitm_gateway"
# What the filter tells Envoy in a request's headers. Clients cannot: theirs of such names are taken out first.
MARK = "x-mitm-gateway-"
PATH, MODEL, KEY = f"{MARK}path", f"{MARK}model", f"{MARK}moved"
MODEL_SENT = "model_sent"
# What the filter notes last of all: the number of the rule that it finished with, 0 where there is none.
RULE = "rule"
_MODULES = ("strings", "json", "restore", "usage")
_VERSION = re.compile(r"/v[0-9]+[a-z0-9]*")
KEEP, STRIP = Auth(scheme="keep"), Auth(scheme="none")


def lua(ruleset: RuleSet, listener: Listener, options: Options) -> str:
    """The whole filter for one listener."""
    rules = [rule for rule in ruleset.rules if rule in ruleset.on_host(listener.host, listener.host_port)]
    data = {
        "origins": dict.fromkeys(options.origins, True),
        "clients": options.clients,
        "tokens": options.tokens,
        "body_limit": options.body_limit,
        "answers_head": any(rule.respond.head for rule in rules),
        "asks_model": any(rule.match.model is not None for rule in rules),
        "rules": [rule_data(rule, listener) for rule in ruleset.rules],
    }
    return f"{library()}\nlocal LISTENER = {literal(data)}\n\n{_part('gateway')}"


def library(modules: Sequence[str] = _MODULES) -> str:
    """These modules as Lua source, each a table that a local name holds; each may use those before it."""
    # A function of Lua has room for 200 locals, so each module is one of its own.
    wrapped = (f"local {name} = (function()\n{_part(name)}\nreturn {name}\nend)()\n" for name in modules)
    return 'local ffi = require("ffi")\n' + "\n".join(wrapped)


def _part(name: str) -> str:
    return resources.files(__package__).joinpath("lua", f"{name}.lua").read_text(encoding="utf-8")


def destination(rule: Rule, listener: Listener) -> Upstream:
    """Where a rule's requests go."""
    if isinstance(rule.upstream, Upstream):
        return rule.upstream
    return Upstream("https", listener.host, listener.host_port)


def auth_of(rule: Rule, listener: Listener) -> Auth:
    """How a rule's key is sent, also where the rule does not say it."""
    return rule.auth or (KEEP if destination(rule, listener).host == listener.host else STRIP)


def rule_data(rule: Rule, listener: Listener) -> dict[str, Any]:
    """What the filter does for a rule; the secrets are Envoy's to put in, and not here."""
    auth, place = auth_of(rule, listener), destination(rule, listener)
    return {
        "name": rule.name,
        "strips": auth.scheme != "keep",
        "client": _client(rule, auth, place) if auth.credential == CLIENT else None,
        "beta": _beta(rule.beta) if rule.beta else None,
        "models": _models(rule.models) if rule.models else None,
        "restores": bool(rule.models and rule.models.restore),
        "reads_body": rule.reads_body,
        "counts_tokens": rule.respond.count_tokens == "estimate",
        "body_remove": [_steps(path) for path in rule.body.remove],
        "body_set": [[_steps(path), value] for path, value in rule.body.set_texts],
    }


def version_of(base: str) -> str | None:
    """The version segment at the end of a base path, which no target has twice."""
    last = base[base.rfind("/") :] if base else ""
    return last if _VERSION.fullmatch(last) else None


def auth_header(auth: Auth) -> tuple[str, str]:
    """The header of an auth scheme, and what stands in front of the secret there."""
    match auth.scheme:
        case "bearer":
            return "authorization", "Bearer "
        case "token":
            return "authorization", "token "
        case "basic":
            return "authorization", "Basic "
        case "header":
            return auth.name or "", auth.prefix or ""
        case scheme:
            return scheme, ""


def _client(rule: Rule, auth: Auth, place: Upstream) -> dict[str, Any]:
    is_anthropic = place.host == "anthropic.com" or place.host.endswith(".anthropic.com")
    return {
        "prefer": auth.prefer,
        "is_basic": auth.scheme == "basic",
        "refuses_anthropic": not rule.allow_anthropic_key and not is_anthropic,
    }


def _beta(beta: Beta) -> dict[str, Any]:
    return {
        "keep": None if beta.keep is None else [_literals(glob) for glob in beta.keep],
        "drop": [_literals(glob) for glob in beta.drop],
        "rename": dict(beta.rename),
        "add": list(beta.add),
    }


def _models(models: Models) -> dict[str, Any]:
    return {
        "exact": {name: models.map[name] for name in models.exact_names},
        "globs": [[_literals(Glob(name)), sent] for name, sent in models.map.items() if "*" in name],
        "default": models.default,
    }


def _literals(glob: Glob) -> list[str]:
    first, *others = glob.text.split("*")
    # Several stars in a row are one.
    return [first, *[text for text in others[:-1] if text], *others[-1:]]


def _steps(path: FieldPath) -> list[str | int | bool]:
    return [True if step is None else step for step in path.steps]


def literal(value: object) -> str:
    """A value as Lua source."""
    match value:
        case None:
            return "nil"
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case str():
            return _text(value)
        case Mapping():
            fields = (
                f"[{literal(key)}] = {literal(item)}" for key, item in value.items() if item is not None
            )
            return "{ " + ", ".join(fields) + " }"
        case Sequence():
            return "{ " + ", ".join(literal(item) for item in value) + " }"
        case _:
            raise TypeError(type(value).__name__)


def _text(value: str) -> str:
    text = json.dumps(value, ensure_ascii=False)
    # The escapes that JSON and Lua share stay; those that Lua does not know become bytes.
    if "\\u" not in text and "\\/" not in text and "\\b" not in text and "\\f" not in text:
        return text
    return '"' + "".join(f"\\{byte:03d}" for byte in value.encode("utf-8", "surrogateescape")) + '"'
