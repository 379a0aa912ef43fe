"""What the subcommands share: exit statuses, where rules are, how faults are said."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TypeAlias

from ..rules.load import load
from ..rules.ruleset import RuleSet

OK, FAULT, USAGE, INTERRUPTED = 0, 1, 2, 130
Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def config_folder() -> Path:
    """Where this user's settings of ours lie."""
    base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(base) / "mitm-gateway"


def default_rules() -> Path:
    """Where the installed command looks for rules: never in the current directory."""
    return config_folder() / "rules.yaml"


def script() -> Path:
    """The script to give to `mitmdump -s`."""
    return Path(__file__).resolve().parent.parent / "script" / "gateway.py"


def add_rules(parser: argparse.ArgumentParser) -> None:
    """Adds the option that names a rules file."""
    parser.add_argument("--rules", type=Path, metavar="FILE", help=f"rules file (default {default_rules()})")


def read_rules(path: Path | None) -> RuleSet:
    """The rules of a file, or of the default one. Raises RulesError."""
    return load(path or default_rules(), os.environ)


def wrong_usage(text: str) -> int:
    """Says what is wrong with the call, and gives its exit status."""
    print(f"mitm-gateway: {text}", file=sys.stderr)
    return USAGE
