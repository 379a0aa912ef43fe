"""`stats`: sum up a `gateway_log` by rule and model."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..observe.stats import Stats
from ..text.printable import visible
from .common import OK, Subparsers, examples, say


def add(commands: Subparsers) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "stats",
        help="sum up a gateway_log by rule and model",
        description="Sum up requests, errors, tokens and times of a gateway_log by rule and model.",
        epilog=examples(
            "stats log.jsonl",
            "stats < log.jsonl",
        ),
    )
    parser.set_defaults(run=run)
    parser.add_argument(
        "file", nargs="?", type=Path, metavar="FILE", help="the log (default: standard input)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Print the table."""
    stats = Stats()
    if arguments.file is None:
        stats.add_lines(sys.stdin.buffer)
    else:
        with arguments.file.open("rb") as lines:
            stats.add_lines(lines)
    print(visible("\n".join(stats.table())))
    if stats.unreadable:
        say(f"{stats.unreadable} lines are not entries of a gateway_log")
    return OK
