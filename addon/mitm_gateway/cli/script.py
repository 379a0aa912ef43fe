"""`script`: print the path to give to `mitmdump -s`."""

from __future__ import annotations

import argparse

from .common import OK, Subparsers, script_path


def add(commands: Subparsers) -> None:
    """Add the subcommand."""
    commands.add_parser("script", help="print the path to give to mitmdump -s").set_defaults(run=run)


def run(_: argparse.Namespace) -> int:
    """Print the path."""
    print(script_path())
    return OK
