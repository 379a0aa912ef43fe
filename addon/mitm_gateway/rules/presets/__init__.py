"""Dated data for well-known upstreams: what a rule with `preset` need not say itself."""

# Each preset is a YAML file with `rule`, the part of a rule that it fills, beside what is told about it
# (its date, its sources). A preset's strings may read the environment, as those of a rule do.

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Any

from ..document import parse

_SUFFIX = ".yaml"


@cache
def names() -> tuple[str, ...]:
    """The names of all presets, in alphabetical order."""
    files = (file.name for file in resources.files(__package__).iterdir())
    return tuple(sorted(name.removesuffix(_SUFFIX) for name in files if name.endswith(_SUFFIX)))


@cache
def describe(name: str) -> dict[str, Any]:
    """All that a preset's file holds. Raises KeyError where there is none of this name."""
    if name not in names():
        raise KeyError(name)
    file = resources.files(__package__) / (name + _SUFFIX)
    data: dict[str, Any] = parse(file.read_bytes(), file.name).data
    return data


def load(name: str) -> dict[str, Any]:
    """The part of a rule that a preset fills. Raises KeyError where there is none of this name."""
    rule: dict[str, Any] = describe(name)["rule"]
    return rule


def rule_text(name: str) -> str:
    """The part of a preset's file that fills a rule, as it is written there."""
    text = (resources.files(__package__) / (name + _SUFFIX)).read_text(encoding="utf-8")
    return "rule:" + text.partition("\nrule:")[2].partition("\nstarter:")[0]
