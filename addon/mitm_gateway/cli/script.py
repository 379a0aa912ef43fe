"""`script`: print the path to give to `mitmdump -s`."""

import argparse

from .common import OK, Subparsers, examples, script_path


def add(commands: Subparsers) -> None:
    """Add the subcommand."""
    commands.add_parser(
        "script",
        run=run,
        help="print the path to give to mitmdump -s",
        description="Print the path to give to `mitmdump -s`, for a mitmproxy in the same environment.",
        epilog=examples("script"),
    )


def run(_: argparse.Namespace) -> int:
    """Print the path."""
    print(script_path())
    return OK
