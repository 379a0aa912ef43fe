"""The map from the client's model names to the upstream's. The Lua filter for Envoy has the same functions."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

from ..text.short_cache import remember_short
from .patterns import Glob

# Claude Code's notation for the long context window, which upstreams do not know.
_LONG_CONTEXT = "[1m]"
CAPTURE = re.compile(r"\{([0-9]{1,9})\}")


def base_name(name: str) -> str:
    """Return a model name without a trailing `[1m]`, in any case and any number."""
    end = len(name)
    while name[max(0, end - len(_LONG_CONTEXT)) : end].lower() == _LONG_CONTEXT:
        end -= len(_LONG_CONTEXT)
    return name[:end]


@dataclass(frozen=True, slots=True)
class NameTemplate:
    """A name for the upstream, with `{1}`, `{2}`, … for the texts that the stars of its pattern matched."""

    text: str

    @property
    def captures(self) -> tuple[int, ...]:
        """The numbers of the stars that the target uses."""
        return tuple(int(number) for number in CAPTURE.findall(self.text))

    def filled(self, captured: tuple[str, ...]) -> str:
        """Return the name for the texts that the stars matched."""
        return CAPTURE.sub(lambda found: captured[int(found[1]) - 1], self.text)

    @property
    def form(self) -> Glob:
        """A glob that covers every name that the target can become."""
        return Glob(CAPTURE.sub("*", self.text))


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
    def globs(self) -> tuple[tuple[Glob, NameTemplate], ...]:
        """The entries with a star, in file order."""
        return tuple((Glob(name), NameTemplate(sent)) for name, sent in self.names.items() if "*" in name)

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
        sent = self._found(name)
        return name if sent is None else sent

    def covers(self, name: str) -> bool:
        """Return whether an entry, the default or a target decides on a name; any other is sent as it is."""
        return self._found(name) is not None

    def asked_for(self, sent: str) -> str | None:
        """Return the client's name that is sent as this one, if exactly one can be.

        `[1m]` at its end, and clients that ask for the target itself, are not considered.
        """
        if sent == self.default:
            return None
        found = {name for name, target in self.exact.items() if target == sent}
        for glob, target in self.globs:
            if (names := _names_sent_as(sent, glob, target)) is None:
                return None
            found.update(names)
        found = {name for name in found if self.sent_for(name) == sent}
        return found.pop() if len(found) == 1 else None

    @cached_property
    def _found(self) -> Callable[[str], str | None]:
        return remember_short(self._find)

    def _find(self, name: str) -> str | None:
        base = base_name(name)
        for each in dict.fromkeys((name, base)):
            if (found := self._mapped(each)) is not None:
                return found
        # No pattern covers the name: if it has the form of a target, it is one of the upstream's own. The texts of
        # stars are without `[1m]`, so a form with it has written it out.
        for each in (base, name):
            if any(form.covers(each) for form in self.forms):
                return each
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


def _names_sent_as(sent: str, glob: Glob, target: NameTemplate) -> tuple[str, ...] | None:
    """Return the name that a pattern turns into this one, or no name; None for more than one."""
    captured = target.form.captures(sent)
    if captured is None:
        return ()
    literals = glob.literals
    if len(captured) != len(target.captures) or len({*target.captures}) != len(literals) - 1:
        return None  # a star without a capture, or two captures without a text between them
    if captured != _captures_from_the_right(target.form, sent):
        return None
    texts = dict(zip(target.captures, captured, strict=True))
    if target.filled(tuple(texts[number] for number in sorted(texts))) != sent:
        return ()
    stars = (texts[number] + literal for number, literal in enumerate(literals[1:], start=1))
    return (literals[0] + "".join(stars),)


def _captures_from_the_right(glob: Glob, text: str) -> tuple[str, ...]:
    found = Glob(glob.text[::-1]).captures(text[::-1]) or ()
    return tuple(part[::-1] for part in reversed(found))
