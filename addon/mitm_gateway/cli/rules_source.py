"""The rules of a run: a named file, the environment form, Claude Code's settings or the user's file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..clients import claude_settings
from ..rules import from_env
from ..rules.load import load
from ..rules.ruleset import RuleSet
from .common import default_rules


@dataclass(frozen=True, slots=True)
class RulesSource:
    """Rules, the file that holds them, and the secrets that the gateway's environment needs besides."""

    ruleset: RuleSet
    file: Path
    name: str
    secrets: Mapping[str, str] = field(default_factory=dict)


def find_rules(file: Path | None, environ: Mapping[str, str], folder: Path) -> RulesSource:
    """Return the first source that exists; a file that must be written goes to `folder`. Raises RulesError."""
    if file is not None:
        return RulesSource(load(file, environ), file, str(file))
    if (ruleset := from_env.from_environment(environ)) is not None:
        written = folder / "rules.yaml"
        written.write_text(from_env.rules_file(environ))
        return RulesSource(ruleset, written, from_env.MODE_VARIABLE, from_env.gateway_environment(environ))
    path = claude_settings.desktop_rules(environ) or default_rules()
    return RulesSource(load(path, environ), path, str(path))
