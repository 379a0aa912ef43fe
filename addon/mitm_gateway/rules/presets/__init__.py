"""Dated data about well-known upstreams: the parts that a rule with `preset` leaves out.

Each preset is a YAML file: `rule` is the part of a rule that it provides; title, date, sources and notes
describe it. Its texts may use environment variables, as a rule's may; `variables` lists the sources of one: other
variables, or `aws-profile` for the region of the selected AWS profile.
"""

from collections.abc import Mapping
from functools import cache
from typing import Any

from ..document import packaged_files, parse
from .aws_region import profile_region

_AWS_PROFILE = "aws-profile"


def names() -> tuple[str, ...]:
    """Return the names of all presets in alphabetical order."""
    return tuple(packaged_files(__package__))


@cache
def content(name: str) -> dict[str, Any]:
    """Return the content of a preset's file. Raises KeyError for an unknown name."""
    file = packaged_files(__package__)[name]
    data: dict[str, Any] = parse(file.read_bytes(), file.name).data
    return data


def rule_of(name: str) -> dict[str, Any]:
    """Return the part of a rule that a preset provides. Raises KeyError for an unknown name."""
    rule: dict[str, Any] = content(name)["rule"]
    return rule


def with_variables(name: str, environ: Mapping[str, str]) -> Mapping[str, str]:
    """Return the environment with the preset's variables, each from the first source of its list with a value."""

    def value(source: str) -> str | None:
        return profile_region(environ) if source == _AWS_PROFILE else environ.get(source)

    variables: dict[str, list[str]] = content(name).get("variables", {})
    chosen = {
        variable: next(filter(None, map(value, sources)), None) for variable, sources in variables.items()
    }
    return {**environ, **{variable: value for variable, value in chosen.items() if value}}


def rule_text(name: str) -> str:
    """Return the text of that part as written in the preset's file."""
    text = packaged_files(__package__)[name].read_text(encoding="utf-8")
    return "rule:" + text.partition("\nrule:")[2].partition("\nstarter:")[0]
