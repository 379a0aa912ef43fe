"""`check`: report every mistake in rules files."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from ..rules.load import load, parse_rules
from ..rules.nodes import MAX_BYTES
from ..rules.problems import RulesError
from ..rules.ruleset import RuleSet
from ..rules.suspicions import suspicions
from .common import FAULT, OK, Subparsers, add_rules_option, report, rule_count, say
from .rules_source import find_rules

_STDIN = "-"
_EXAMPLES = """\
examples:
  mitm-gateway check
  mitm-gateway check team/*.yaml
  git show main:rules.yaml | mitm-gateway check -"""


def add(commands: Subparsers) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "check",
        help="report every mistake in rules files",
        description="Report every mistake with file, line and column. The exit status is 1 if there is any.",
        epilog=_EXAMPLES,
    )
    parser.set_defaults(run=run)
    add_rules_option(parser)
    parser.add_argument("files", nargs="*", metavar="FILE", help="rules files; - reads standard input")


def run(arguments: argparse.Namespace) -> int:
    """Check each file and print its number of rules or its mistakes."""
    if not arguments.files:
        source = find_rules(arguments.rules, os.environ)
        return _passed(source.name, source.ruleset)
    return max([_check(name) for name in arguments.files])


def _check(name: str) -> int:
    try:
        ruleset = (
            parse_rules(sys.stdin.buffer.read(MAX_BYTES + 1), "<stdin>", os.environ)
            if name == _STDIN
            else load(Path(name), os.environ)
        )
    except RulesError as fault:
        report(fault)
        return FAULT
    return _passed(name, ruleset)


def _passed(name: str, ruleset: RuleSet) -> int:
    warn(ruleset, os.environ)
    print(f"{name}: {rule_count(ruleset)}, no problems")
    return OK


def warn(ruleset: RuleSet, environ: Mapping[str, str]) -> None:
    """Print what looks like a mistake in valid rules."""
    for text in (*map(str, suspicions(ruleset)), *unset_credentials(ruleset, environ)):
        say(f"warning: {text}")


def unset_credentials(ruleset: RuleSet, environ: Mapping[str, str]) -> Iterator[str]:
    """Yield a warning for each credential in use whose variable is not set here."""
    used = {name for rule in ruleset.rules for name in rule.credential_names}
    for name, credential in ruleset.credentials.items():
        variable = credential.env
        if name in used and variable and not environ.get(variable) and credential.default is None:
            yield f'credential "{name}" reads {variable}, which is not set here'
