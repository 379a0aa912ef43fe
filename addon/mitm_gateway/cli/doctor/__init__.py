"""`doctor`: check everything that usually goes wrong, and name the fix."""

import argparse
import os
from importlib.metadata import version
from pathlib import Path

from ...text.printable import counted
from ..common import FAULT, OK, Subparsers, add_port_option, add_rules_option, examples
from . import clients, network, options, patches, rules, trust, upstreams
from .finding import Fault, Findings, Good, Note, Subject


def add(commands: Subparsers) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "doctor",
        run=run,
        help="check rules, keys, trust, port, options and patches",
        description="Check rules, keys, trust, port, options and patches. Each fault comes with its fix.",
        epilog=examples("doctor", "doctor --port 8081", "doctor --patches"),
    )
    add_rules_option(parser)
    add_port_option(parser, "port that the gateway will use")
    parser.add_argument(
        "--patches", action="store_true", help="list each change to mitmproxy, and the defect that it fixes"
    )


def run(arguments: argparse.Namespace) -> int:
    """Print every finding; exit with status 1 if one is a fault."""
    subject = Subject(
        rules=arguments.rules,
        environ=os.environ,
        port=arguments.port,
        confdir=Path("~/.mitmproxy").expanduser(),
        project=Path.cwd(),
        mitmproxy=version("mitmproxy"),
        lists_patches=arguments.patches,
    )
    faults = 0
    for finding in findings(subject):
        match finding:
            case Good(text):
                print(f"ok     {text}")
            case Fault(text, fix):
                faults += 1
                print(f"FAULT  {text}\n       fix: {fix}")
            case Note(text, advice):
                print(f"note   {text}\n       advice: {advice}")
    print(f"{counted(faults, 'fault')} found" if faults else "no faults found")
    return FAULT if faults else OK


def findings(subject: Subject) -> Findings:
    """Run all checks; without readable rules, those that depend on rules are skipped."""
    ruleset, found = rules.read_rules(subject)
    yield from found
    if ruleset is not None:
        yield from rules.check_credentials(ruleset, subject)
        yield from options.check(ruleset, subject)
        yield from network.check_exceptions(ruleset, subject)
        yield from rules.check_exposure(ruleset)
        yield from upstreams.check(ruleset, subject)
        yield from clients.check_programs(ruleset, subject)
    yield from trust.check(subject)
    yield from network.check_port(subject)
    yield from trust.check_version(subject)
    yield from patches.check(subject)
    yield from clients.check_claude_code(subject)
