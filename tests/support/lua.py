"""The exported filter's library in LuaJIT, as Envoy runs it."""

from collections.abc import Mapping, Sequence
from typing import Any

from lupa.luajit21 import LuaRuntime, lua_type

from mitm_gateway.envoy.export_options import Listener
from mitm_gateway.envoy.lua_filter import library, rule_data
from mitm_gateway.rules.schema import Rule

# Returns the results of a function, or the reason of a refusal.
_CALLER = b"""
return function(called)
  return function(...)
    local results = { pcall(called, ...) }
    if results[1] then return unpack(results, 2, table.maxn(results)) end
    if type(results[2]) ~= "table" then error(results[2], 0) end
    return results[2]
  end
end
"""


def data_of(rule: Rule) -> dict[str, Any]:
    """Return a rule as the filter has it."""
    return rule_data(rule, Listener("127.0.0.1", 1))


class Refused(Exception):
    """A refusal of the filter; its text is the reason."""


class Library:
    """The modules of the filter that need no Envoy; texts are bytes, and constants can be replaced."""

    def __init__(self, **constants: Any) -> None:
        self._runtime = LuaRuntime(encoding=None)
        self._modules = library(**constants).encode() + b"\n"
        self._caller = self._runtime.execute(_CALLER)
        self._executed: dict[str, Any] = {}
        self._functions: dict[str, Any] = {}

    def execute(self, code: str) -> Any:
        """Run Lua behind the modules, once for each text."""
        if code not in self._executed:
            self._executed[code] = self._runtime.execute(self._modules + code.encode())
        return self._executed[code]

    def call(self, name: str, *arguments: Any) -> Any:
        """Call a function by its name, such as `json.scan`; raises Refused."""
        if name not in self._functions:
            self._functions[name] = self._caller(self.execute(f"return {name}"))
        result = self._functions[name](*map(self._argument, arguments))
        if lua_type(result) == "table" and result[b"reason"] is not None:
            raise Refused(result[b"reason"].decode())
        return result

    def _argument(self, value: Any) -> Any:
        match value:
            case str():
                return value.encode("utf-8", "surrogateescape")
            case Mapping():
                return self._runtime.table_from(
                    {self._argument(key): self._argument(each) for key, each in value.items()}
                )
            case Sequence() if not isinstance(value, bytes):
                return self._runtime.table_from(list(map(self._argument, value)))
        return value
