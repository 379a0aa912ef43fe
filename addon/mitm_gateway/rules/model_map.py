"""Model names: the client's name to the upstream's. The Lua filter for Envoy has the same functions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from .patterns import Glob

# Claude Code's notation for the long context window, which upstreams do not know.
_LONG_CONTEXT = "[1m]"
_CAPTURE = re.compile(r"\{([0-9]{1,3})\}")


def base_name(name: str) -> str:
    """Return a model name without a trailing `[1m]`, in any case and any number."""
    end = len(name)
    while name[max(0, end - len(_LONG_CONTEXT)) : end].lower() == _LONG_CONTEXT:
        end -= len(_LONG_CONTEXT)
    return name[:end]


@dataclass(frozen=True, slots=True)
class Target:
    """A name for the upstream, with `{1}`, `{2}`, … for the texts that the stars of its pattern matched."""

    text: str

    @property
    def captures(self) -> tuple[int, ...]:
        """The numbers of the stars that the target uses."""
        return tuple(int(number) for number in _CAPTURE.findall(self.text))

    def filled(self, captured: tuple[str, ...]) -> str:
        """Return the name for the texts that the stars matched."""
        return _CAPTURE.sub(lambda found: captured[int(found[1]) - 1], self.text)

    @property
    def form(self) -> Glob:
        """A glob that covers every name that the target can become."""
        return Glob(_CAPTURE.sub("*", self.text))


@dataclass(frozen=True)
class ModelMap:
    """The names of one rule: exact names, then globs in file order, then both without `[1m]`, then the default.

    A name that is itself a target stays as it is.
    """

    names: Mapping[str, str]
    default: str | None = None

    @cached_property
    def exact(self) -> dict[str, str]:
        """The entries without a star."""
        return {name: sent for name, sent in self.names.items() if "*" not in name}

    @cached_property
    def globs(self) -> tuple[tuple[Glob, Target], ...]:
        """The entries with a star, in file order."""
        return tuple((Glob(name), Target(sent)) for name, sent in self.names.items() if "*" in name)

    @cached_property
    def targets(self) -> frozenset[str]:
        """The targets that are one name."""
        return frozenset(self.exact.values()) | {to.text for _, to in self.globs if not to.captures}

    @cached_property
    def forms(self) -> tuple[Glob, ...]:
        """The forms of the other targets."""
        return tuple(target.form for _, target in self.globs if target.captures)

    def sent_for(self, name: str) -> str:
        """Return the name that the upstream gets for the client's."""
        for each in dict.fromkeys((name, base_name(name))):
            if (found := self._mapped(each)) is not None:
                return found
        # No pattern covers the name: if it has the form of a target, it is one of the upstream's own.
        if self.default is None or any(form.covers(name) for form in self.forms):
            return name
        return self.default

    def _mapped(self, name: str) -> str | None:
        if (sent := self.exact.get(name)) is not None:
            return sent
        if name in self.targets:
            return name
        for glob, target in self.globs:
            if (captured := glob.captures(name)) is not None:
                return target.filled(tuple(map(base_name, captured)))
        return None
