"""mitmproxy-gateway: YAML rules that let any LLM client use any gateway, inside mitmproxy.

The public API; everything else may change in any release:

- `load_rules(path, environ)`: read a rules file, with the variables of `environ`. Return a `RuleSet`, or raise
  `RulesError`.
- `RulesError`: every mistake of a rules file; its text has one `file:line:column: message` a line.
- `RuleSet`: validated rules. `find(head)` returns the rule that takes a request.
- `explain(rules, method, url, headers, model)`: tell which rule takes a request and what it changes, without
  sending anything or reading a secret. `lines()` and `as_json()` of the result show it.
- `GatewayAddon()`: the addon for mitmproxy: `addons = [GatewayAddon()]`.
"""

from __future__ import annotations

import gc
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .exchange.explain import explain_url as explain
    from .mitm.addon import GatewayAddon
    from .rules.load import load as load_rules
    from .rules.problems import RulesError
    from .rules.ruleset import RuleSet

__version__ = "0.1.0"
__all__ = ["GatewayAddon", "RuleSet", "RulesError", "__version__", "explain", "load_rules"]

# Imported on first use: the rules work without mitmproxy, and a command starts without what it does not need.
_PLACES = {
    "load_rules": (".rules.load", "load"),
    "RuleSet": (".rules.ruleset", "RuleSet"),
    "RulesError": (".rules.problems", "RulesError"),
    "explain": (".exchange.explain", "explain_url"),
    "GatewayAddon": (".mitm.addon", "GatewayAddon"),
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _PLACES[name]
    # Imported objects stay: a search for garbage among them finds none.
    was_collecting = gc.isenabled()
    gc.disable()
    try:
        return getattr(import_module(module, __name__), attribute)
    finally:
        if was_collecting:
            gc.enable()
