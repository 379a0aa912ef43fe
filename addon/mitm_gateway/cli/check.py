"""`check`: report every mistake in rules files."""

import argparse
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from ..credentials.helper import command_line
from ..rules.load import load, parse_rules
from ..rules.nodes import MAX_BYTES
from ..rules.problems import RulesError
from ..rules.ruleset import RuleSet
from ..rules.schema import Credential
from ..rules.suspicions import suspicions
from ..text.printable import one_line
from .common import FAULT, OK, Subparsers, add_rules_option, print_fault, rule_count, say
from .rules_source import RulesSource, find_rules

_EXAMPLES = """\
examples:
  mitm-gateway check
  mitm-gateway check team/*.yaml
  git show main:rules.yaml | mitm-gateway check -"""


def add(commands: Subparsers) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "check",
        run=run,
        help="report every mistake in rules files",
        description="Report every mistake with file, line and column. The exit status is 1 if there is any.",
        epilog=_EXAMPLES,
    )
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
        if name == "-":
            ruleset = parse_rules(sys.stdin.buffer.read(MAX_BYTES + 1), "<stdin>", os.environ)
        else:
            ruleset = load(Path(name), os.environ)
    except RulesError as fault:
        print_fault(fault)
        return FAULT
    return _passed(ruleset.file, ruleset)


def _passed(name: str, ruleset: RuleSet) -> int:
    warn(ruleset, os.environ)
    print(f"{one_line(name)}: {rule_count(ruleset)}, no problems")
    return OK


def warn(ruleset: RuleSet, environ: Mapping[str, str]) -> None:
    """Print a warning for each likely mistake in valid rules."""
    for text in (*map(str, suspicions(ruleset)), *missing_sources(ruleset, environ)):
        say(f"warning: {text}")


def warn_of_missing(source: RulesSource) -> None:
    """Print a warning for each credential without a source, which would otherwise be refused with the first request."""
    if source.file is not None:
        for text in missing_sources(source.ruleset, os.environ):
            say(f"warning: {text}")


def missing_sources(ruleset: RuleSet, environ: Mapping[str, str]) -> Iterator[str]:
    """Yield a warning for each credential in use whose variable, file or helper program does not exist here."""
    used = {name for rule in ruleset.rules for name in rule.credential_names}
    for name, credential in ruleset.credentials.items():
        if name in used and (reason := _missing(credential, environ)):
            yield f'credential "{name}" {reason}'


def _missing(credential: Credential, environ: Mapping[str, str]) -> str | None:
    if (variable := credential.env) and not environ.get(variable) and credential.default is None:
        return f"reads {variable}, which is not set here"
    if credential.file and not Path(credential.file).expanduser().exists():
        return f"reads {credential.file}, which does not exist here"
    if credential.command:
        program = command_line(credential.command, environ)[0]
        if shutil.which(program, path=environ.get("PATH")) is None:
            return f"runs {program}, which is not installed here"
    return None
