"""`check`: report every mistake in a rules file."""

from __future__ import annotations

import argparse
from pathlib import Path

from .common import OK, Subparsers, default_rules, read_rules, rule_count


def add(commands: Subparsers) -> None:
    """Add the subcommand."""
    parser = commands.add_parser("check", help="report every mistake in a rules file")
    parser.set_defaults(run=run)
    parser.add_argument("file", nargs="?", type=Path, metavar="FILE", help="rules file")


def run(arguments: argparse.Namespace) -> int:
    """Print the number of rules. Raises RulesError with every mistake."""
    ruleset = read_rules(arguments.file)
    print(f"{arguments.file or default_rules()}: {rule_count(ruleset)}, no problems")
    return OK
