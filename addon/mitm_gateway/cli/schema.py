"""`schema`: print the JSON Schema of rules files, for editors."""

import argparse
import json

from ..rules.json_schema import json_schema
from .common import OK, Subparsers, examples


def add(commands: Subparsers) -> None:
    """Add the subcommand."""
    commands.add_parser(
        "schema",
        run=run,
        help="print the JSON Schema of rules files",
        description="Print the JSON Schema of rules files, for editors.",
        epilog=examples("schema > rules.schema.json"),
    )


def run(_: argparse.Namespace) -> int:
    """Print the schema."""
    print(json.dumps(json_schema(), indent=2))
    return OK
