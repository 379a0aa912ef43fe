"""The Lua filter's source: the modules of `lua/`, the constants that they share with the addon, and a listener's rules."""

import json
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from ..exchange import plan
from ..exchange.query import encoded
from ..exchange.websocket import reads_messages
from ..llm.calls import form_on
from ..rules.edits import Beta, Models, QueryEdits
from ..rules.field_paths import FieldPath, PathStep, Selector
from ..rules.fields import CLIENT
from ..rules.model_map import CAPTURE, ModelMap, NameTemplate
from ..rules.patterns import Glob
from ..rules.ruleset import RuleSet
from ..rules.schema import Auth, Rule
from ..wire.addresses import Upstream
from .export_options import Listener, Options
from .lua_constants import CONSTANTS
from .refusals import too_large

# Each may use the ones before it.
_LIBRARY = (
    "text", "strings", "escapes", "growth", "json", "logged", "head", "keys", "kinds", "model_map", "models",
    "forms", "edits", "estimate", "restore", "frames", "usage",
)  # fmt: skip
_HANDLERS = ("admission",)
_HOOKS = ("request", "response")


def lua(ruleset: RuleSet, listener: Listener, options: Options) -> str:
    """Return the whole filter for one listener."""
    rules = [rule for rule in ruleset.rules if rule in ruleset.on_host(listener.host, listener.host_port)]
    data = {
        "origins": dict.fromkeys(options.origins, True),
        "clients": options.clients,
        "tokens": options.tokens,
        "body_limit": options.body_limit,
        "too_large": too_large(options.body_limit).reason,
        "answers_head": any(rule.respond.head for rule in rules),
        "form": form_on(listener.host),
        "asks_model": any(rule.match.model is not None for rule in rules),
        "rules": [rule_data(rule, listener, is_served=rule in rules) for rule in ruleset.rules],
    }
    hooks = (f"do\n{_source(name)}end\n" for name in _HOOKS)
    return "\n".join([library(), f"local LISTENER = {literal(data)}\n", *map(_module, _HANDLERS), *hooks])


def library(**replaced: Any) -> str:
    """Return the modules that need no Envoy; `replaced` gives constants other values, for tests."""
    start = f'local ffi = require("ffi")\nlocal CONSTANTS = {literal(CONSTANTS | replaced)}\n'
    return "\n".join([start, *map(_module, _LIBRARY)])


def _module(name: str) -> str:
    # A Lua function has room for 200 locals, so each module is a function.
    return f"local {name} = (function()\n{_source(name)}\nreturn {name}\nend)()\n"


def _source(name: str) -> str:
    return resources.files(__package__).joinpath("lua", f"{name}.lua").read_text(encoding="utf-8")


def destination_on(rule: Rule, listener: Listener) -> Upstream:
    """Return where Envoy sends a rule's requests."""
    found = plan.destination_of(rule, "https", listener.host, listener.host_port)
    assert found, "find_unsupported refuses the demo gateway"
    return found


def auth_on(rule: Rule, listener: Listener) -> Auth:
    """Return how Envoy sends a rule's key."""
    return plan.auth_of(rule, destination_on(rule, listener), listener.host)


def rule_data(rule: Rule, listener: Listener, *, is_served: bool = True) -> dict[str, Any]:
    """Return the filter's share of a rule; Envoy itself adds the secrets."""
    auth = auth_on(rule, listener)
    return {
        "name": rule.name,
        "match_model": [glob.literals for glob in rule.match.model or ()] if is_served else None,
        "strips": auth.scheme != "keep",
        "client": _client(rule, auth, listener) if auth.credential == CLIENT else None,
        "query": _query(rule.query),
        "beta": _beta(rule.beta) if rule.beta else None,
        "models": _models(rule.models) if rule.models else None,
        "restores": bool(rule.models and rule.models.restore),
        "reads_body": rule.reads_body,
        "reads_messages": reads_messages(rule),
        "counts_tokens": rule.respond.count_tokens == "estimate",
        "body_remove": [_steps(path) for path in rule.body.remove],
        "body_set": [[_steps(path), value] for path, value in rule.body.set_texts],
    }


def _client(rule: Rule, auth: Auth, listener: Listener) -> dict[str, Any]:
    return {
        "prefer": auth.prefer,
        "refuses_anthropic": not plan.takes_anthropic_key(rule, destination_on(rule, listener)),
    }


def _beta(beta: Beta) -> dict[str, Any]:
    return {
        "keep": None if beta.keep is None else [glob.literals for glob in beta.keep],
        "drop": [glob.literals for glob in beta.drop],
        "rename": dict(beta.rename),
        "add": list(beta.add),
    }


def _models(models: Models) -> dict[str, Any]:
    return {
        "exact": models.names.exact,
        "globs": [[glob.literals, _pieces(target)] for glob, target in models.names.globs],
        "targets": dict.fromkeys(sorted(models.names.targets), True),
        "forms": [form.literals for form in models.names.forms],
        "default": models.default,
        "asked": _asked(models.names),
        "sent_as": [_sent_as(glob, target) for glob, target in models.names.globs if target.captures],
    }


def _asked(names: ModelMap) -> dict[str, str | bool]:
    """Return the client's name for each target that is one name; False if several can be."""
    return {sent: names.asked_for(sent) or False for sent in sorted({*names.targets, names.default or ""})}


def _sent_as(glob: Glob, target: NameTemplate) -> dict[str, Any]:
    """Return an entry with captures, to be read backwards."""
    captures, form = target.captures, target.form.literals
    has_one_name = len(form) - 1 == len(captures) and len({*captures}) == len(glob.literals) - 1
    return {"form": form, "captures": captures, "has_one_name": has_one_name, "literals": glob.literals}


def _pieces(target: NameTemplate) -> list[str | int]:
    """Return a target as its texts and the numbers of its captures."""
    parts = CAPTURE.split(target.text)
    return [int(part) if place % 2 else part for place, part in enumerate(parts)]


def _steps(path: FieldPath) -> list[object]:
    return list(map(_step, path.steps))


def _step(step: PathStep) -> object:
    if isinstance(step, Selector):
        return {"key": step.key, "glob": step.glob.literals}
    return True if step is None else step


def _query(query: QueryEdits) -> dict[str, Any] | None:
    if not (query.set or query.remove):
        return None
    return {
        "set": [[name, f"{encoded(name)}={encoded(value)}"] for name, value in query.set.items()],
        "remove": [glob.literals for glob in query.remove],
    }


def literal(value: object) -> str:
    """Return a value as Lua source."""
    match value:
        case None:
            return "nil"
        case bool():
            return "true" if value else "false"
        case int() | float():
            return str(value)
        case str():
            # Anything but printable ASCII is written as bytes: some characters beyond it end a line for YAML 1.1.
            is_plain = value.isascii() and value.isprintable()
            return json.dumps(value) if is_plain else literal(value.encode("utf-8", "surrogateescape"))
        case bytes():
            return '"' + "".join(f"\\{byte:03d}" for byte in value) + '"'
        case Mapping():
            fields = (
                f"[{literal(key)}] = {literal(item)}" for key, item in value.items() if item is not None
            )
            return "{ " + ", ".join(fields) + " }"
        case Sequence():
            return "{ " + ", ".join(map(literal, value)) + " }"
        case _:
            raise TypeError(type(value).__name__)
