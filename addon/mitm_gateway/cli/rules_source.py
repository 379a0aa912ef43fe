"""The rules file of a command: every command finds it here, and reports its path."""

import argparse
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..clients import claude_settings
from ..rules import from_env
from ..rules.load import load
from ..rules.ruleset import RuleSet
from .common import default_rules, say

_PACKAGE = Path(__file__).resolve().parent.parent
# In a clone it lies beside the addon folder; the installed package contains a copy.
_IS_CLONE = (_PACKAGE.parent / "gateway.py").is_file()
_DEMO_RULES = (_PACKAGE.parent.parent if _IS_CLONE else _PACKAGE) / "rules.yaml"


@dataclass(frozen=True, slots=True)
class RulesSource:
    """Rules and the file that contains them; the environment form has no file."""

    ruleset: RuleSet
    file: Path | None
    name: str
    is_demo: bool = False

    def write(self, folder: Path, environ: Mapping[str, str]) -> tuple[Path, Mapping[str, str]]:
        """Return the file for the gateway, and further secrets for its environment."""
        if self.file is not None and self.file != _PACKAGE / "rules.yaml":
            return self.file, {}
        file = folder / "rules.yaml"
        if self.file is not None:
            # The installer decides about the modes of packaged files; the gateway accepts private ones only.
            shutil.copyfile(self.file, file)
            return file, {}
        text, secrets = from_env.rules_file(environ)
        file.write_text(text)
        return file, secrets


def find_rules(file: Path | None, environ: Mapping[str, str], *, demo: bool = False) -> RulesSource:
    """Return the rules of the first source that exists. Raises RulesError.

    That is the named file, the environment form, Claude Code's settings, the file in the configuration folder
    and, with `demo`, the demo's file.
    """
    if file is None and (ruleset := from_env.from_environment(environ)) is not None:
        return RulesSource(ruleset, None, from_env.MODE_VARIABLE)
    path = file or claude_settings.desktop_rules(environ) or default_rules()
    if demo and file is None and path == default_rules() and not path.exists():
        return RulesSource(load(_DEMO_RULES, environ), _DEMO_RULES, str(_DEMO_RULES), is_demo=True)
    return RulesSource(load(path, environ), path, str(path))


def announced_rules(arguments: argparse.Namespace, *, demo: bool = False) -> RulesSource:
    """Find the rules of a command and print the source to stderr. Raises RulesError."""
    source = find_rules(arguments.rules, os.environ, demo=demo)
    say(rules_line(source))
    return source


def rules_line(source: RulesSource, log: Path | None = None) -> str:
    """Return the line that names the source of the rules and the log; for the demo, with two more lines."""
    line = f"rules from {source.name}" + (f", log in {log}" if log else "")
    if not source.is_demo:
        return line
    return (
        f"{line}\n    {default_rules()} does not exist; by default the embedded demo gateway answers\n"
        "    `mitm-gateway init PRESET` writes rules for a real gateway"
    )
