"""`stats`: sum up a `gateway_log` by rule and model, session or outcome."""

import argparse
import sys
from pathlib import Path

from ..observe.prices import Prices
from ..observe.stats import WAYS, Cost, Stats, logged_cost
from ..rules.problems import RulesError
from ..rules.read_file import FileError, open_file
from ..text.printable import counted, one_line, visible
from .common import FAULT, OK, Subparsers, examples, say, wrong_usage


def add(commands: Subparsers) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "stats",
        run=run,
        help="sum up a gateway_log: requests, tokens, cost and times",
        description="Sum up requests, errors, tokens, cost and times of a gateway_log, with a line of totals.",
        epilog=examples(
            "stats log.jsonl", "stats --by session log.jsonl", "stats --prices prices.yaml < log.jsonl"
        ),
    )
    parser.add_argument(
        "--by",
        choices=WAYS,
        default=WAYS[0],
        metavar="KEY",
        help=f"one row for each: {', '.join(WAYS)} (default: %(default)s)",
    )
    parser.add_argument(
        "--prices", type=Path, metavar="FILE", help="prices to use instead of the costs in the log"
    )
    parser.add_argument(
        "file", nargs="?", type=Path, metavar="FILE", help="the log (default: standard input)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Print the table."""
    if arguments.file is None and sys.stdin.isatty():
        return wrong_usage("FILE is missing; expected a gateway_log, or one on standard input")
    try:
        stats = Stats(_cost(arguments.prices))
    except RulesError as fault:
        for problem in fault.problems:
            say(str(problem))
        return FAULT
    if arguments.file is None:
        stats.add_lines(sys.stdin.buffer)
    else:
        try:
            log = open_file(arguments.file, pipes=True)
        except FileError as fault:
            say(f"{one_line(str(arguments.file))}: {fault}")
            return FAULT
        with log:
            stats.add_lines(log)
    print(visible("\n".join(stats.table(arguments.by))))
    if stats.unreadable:
        verb = "is no entry" if stats.unreadable == 1 else "are no entries"
        say(f"{counted(stats.unreadable, 'line')} {verb} of a gateway_log")
    return OK


def _cost(file: Path | None) -> Cost:
    """Return the cost by a file's prices; else the logged cost, or for an older log the list price of today."""
    prices = Prices.of_file(file)
    if file is not None:
        return prices.cost
    return lambda entry: cost if (cost := logged_cost(entry)) is not None else prices.cost(entry)
