"""`check`, `explain`, `schema` and `script`: what a user asks about rules."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from ..exchange.explain import explain_url
from ..rules.schema import json_schema
from ..text.printable import visible
from .common import OK, Commands, add_rules, default_rules, read_rules, script, wrong_usage


def add(commands: Commands) -> None:
    """Adds the subcommands."""
    check = commands.add_parser("check", help="say what is wrong with a rules file")
    check.set_defaults(run=_check)
    check.add_argument("file", nargs="?", type=Path, metavar="FILE", help="rules file")

    explain = commands.add_parser("explain", help="show what would be done with a request")
    explain.set_defaults(run=_explain)
    add_rules(explain)
    explain.add_argument("--json", action="store_true", help="print JSON")
    explain.add_argument("method", metavar="METHOD")
    explain.add_argument("url", metavar="URL")
    explain.add_argument(
        "-H", dest="headers", action="append", default=[], metavar="'Name: value'", help="request header"
    )
    explain.add_argument("--model", help="model in the body")

    commands.add_parser("schema", help="print the JSON Schema of rules files").set_defaults(run=_schema)
    commands.add_parser("script", help="print the path to give to mitmdump -s").set_defaults(run=_script)


def _check(arguments: argparse.Namespace) -> int:
    ruleset = read_rules(arguments.file)
    count = len(ruleset.rules)
    print(f"{arguments.file or default_rules()}: {count} {'rule' if count == 1 else 'rules'}, no problems")
    return OK


def _explain(arguments: argparse.Namespace) -> int:
    headers = []
    for header in arguments.headers:
        name, colon, value = header.partition(":")
        if not colon:
            return wrong_usage("-H expects 'Name: value'")
        headers.append((name.strip(), value.strip()))
    ruleset = read_rules(arguments.rules)
    try:
        explanation = explain_url(ruleset, arguments.method, arguments.url, headers, arguments.model)
    except ValueError as fault:
        return wrong_usage(str(fault))
    if arguments.json:
        print(json.dumps(explanation.as_json(), indent=2, ensure_ascii=False))
    else:
        lines = visible("\n".join(explanation.lines())).split("\n")
        print("\n".join(map(_coloured, lines) if _wants_colour() else lines))
    return OK


# How a line of an explanation looks, by its first word; the request itself is bold.
_COLOURS = {"remove": "31", "refused": "31", "set": "32", "goes": "36", "not": "2", "rule": "1"}


def _wants_colour() -> bool:
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def _coloured(line: str) -> str:
    if not line.startswith("  "):
        return f"\x1b[1m{line}\x1b[0m"
    colour = _COLOURS.get(line.split()[0])
    return f"\x1b[{colour}m{line}\x1b[0m" if colour else line


def _schema(_: argparse.Namespace) -> int:
    print(json.dumps(json_schema(), indent=2))
    return OK


def _script(_: argparse.Namespace) -> int:
    print(script())
    return OK
