"""`presets`: list the known providers, each with date and source."""

import argparse
import textwrap

from ..rules import presets
from .common import OK, Subparsers, examples

COMMENT_WIDTH = 100


def add(commands: Subparsers) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "presets",
        run=run,
        help="list the known providers, each with date and source",
        description="List the known providers, each with date and source, or show one preset in full.",
        epilog=examples("presets", "presets litellm"),
    )
    parser.add_argument(
        "name", nargs="?", metavar="PRESET", choices=presets.names(), help="show one preset in full"
    )


def run(arguments: argparse.Namespace) -> int:
    """Print the list, or one preset in full."""
    if arguments.name is None:
        for name in presets.names():
            print("\n".join(_summary(name)))
        return OK
    print("\n".join(_summary(arguments.name, notes=True)))
    print(textwrap.indent(presets.rule_text(arguments.name), "    "))
    return OK


def _summary(name: str, *, notes: bool = False) -> list[str]:
    data = presets.content(name)
    lines = [f"{name:<15} {data['title']} ({data['date']})"]
    for source in data["sources"]:
        lines += _wrapped("source:     ", source)
    for fact in data["unverified"]:
        lines += _wrapped("UNVERIFIED: ", fact)
    for note in data["notes"] if notes else ():
        lines += _wrapped("note:       ", note)
    return lines


def _wrapped(label: str, text: str) -> list[str]:
    return textwrap.wrap(
        text, COMMENT_WIDTH, initial_indent=f"    {label}", subsequent_indent=" " * 16, break_long_words=False
    )
