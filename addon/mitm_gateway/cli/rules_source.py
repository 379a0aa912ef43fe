"""The rules of a run: a named file, the environment form, Claude Code's settings or the user's file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..clients import claude_settings
from ..rules import desktop
from ..rules.load import load
from ..rules.ruleset import RuleSet
from .common import default_rules

_KEY_VARIABLE = "MITM_GATEWAY_KEY"


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
    if (ruleset := desktop.from_environment(environ)) is not None:
        written = folder / "rules.yaml"
        written.write_text(json.dumps(_environment_form(environ)))
        secrets = {_KEY_VARIABLE: environ["ANTHROPIC_API_KEY"]}
        return RulesSource(ruleset, written, "ANTHROPIC_AUTH_MODE", secrets)
    path = claude_settings.desktop_rules(environ) or default_rules()
    return RulesSource(load(path, environ), path, str(path))


def _environment_form(environ: Mapping[str, str]) -> dict[str, object]:
    """Return the environment form as a rules file. The key is not in it but in the gateway's environment."""
    return {
        "credentials": {"gateway": {"env": _KEY_VARIABLE}},
        "rules": [
            {
                "name": "environment",
                "match": {"host": desktop.API_HOST, "path": "/v1/**"},
                "upstream": environ["ANTHROPIC_BASE_URL"].replace("$", "$$"),
                "auth": {"scheme": environ["ANTHROPIC_AUTH_MODE"], "credential": "gateway"},
                "respond": {"head": True},
            }
        ],
    }
