"""`stats`: the sums of a `gateway_log`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from ..observe.stats import Stats
from ..text.printable import visible
from .common import FAULT, OK, Commands


def add(commands: Commands) -> None:
    """Adds the subcommand."""
    parser = commands.add_parser("stats", help="sum up a gateway_log by rule and model")
    parser.set_defaults(run=run)
    parser.add_argument(
        "file", nargs="?", type=Path, metavar="FILE", help="the log (default: standard input)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Prints the table."""
    stats = Stats()
    try:
        if arguments.file is None:
            stats.add_lines(sys.stdin.buffer)
        else:
            with arguments.file.open("rb") as lines:
                stats.add_lines(lines)
    except OSError as fault:
        print(f"mitm-gateway: {arguments.file}: {fault.strerror}", file=sys.stderr)
        return FAULT
    print(visible("\n".join(stats.table())))
    if stats.unreadable:
        print(f"mitm-gateway: {stats.unreadable} lines are no entries of a gateway_log", file=sys.stderr)
    return OK
