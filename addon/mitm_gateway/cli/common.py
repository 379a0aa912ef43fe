"""Exit statuses, default paths and options that several commands share."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TypeAlias

from ..rules.load import load
from ..rules.ruleset import RuleSet

OK, FAULT, USAGE, INTERRUPTED = 0, 1, 2, 130
Subparsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def config_folder() -> Path:
    """Return the folder of this user's settings."""
    base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(base) / "mitm-gateway"


def default_rules() -> Path:
    """Return the rules file of this user. It is never in the current directory."""
    return config_folder() / "rules.yaml"


def script_path() -> Path:
    """Return the script to give to `mitmdump -s`."""
    return Path(__file__).resolve().parent.parent / "script" / "gateway.py"


def add_rules_option(parser: argparse.ArgumentParser) -> None:
    """Add the option that names a rules file."""
    parser.add_argument("--rules", type=Path, metavar="FILE", help=f"rules file (default {default_rules()})")


def read_rules(path: Path | None) -> RuleSet:
    """Load a rules file, by default the user's. Raises RulesError."""
    return load(path or default_rules(), os.environ)


def rule_count(ruleset: RuleSet) -> str:
    """Return "1 rule" or "3 rules"."""
    count = len(ruleset.rules)
    return f"{count} {'rule' if count == 1 else 'rules'}"


def say(text: str) -> None:
    """Print a message to stderr, so that stdout contains results only."""
    print(f"mitm-gateway: {text}", file=sys.stderr, flush=True)


def wrong_usage(text: str) -> int:
    """Print a usage error and return its exit status."""
    say(text)
    return USAGE
