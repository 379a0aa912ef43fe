"""`explain`: show which rule takes a request and every edit it makes, without sending anything."""

import argparse
import json
import os
import sys

from ..exchange.explain import explain_url
from ..text.printable import visible
from .check import warn
from .common import OK, Subparsers, add_rules_option, examples, wants_colour, wrong_usage
from .rules_source import announced_rules


def add(commands: Subparsers) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "explain",
        run=run,
        help="show which rule takes a request and every edit it makes",
        description="Show which rule takes a request and every edit it makes, or why none does. Nothing is sent.",
        epilog=examples(
            "explain POST https://api.anthropic.com/v1/messages --model claude-opus-4-8",
            "explain POST http://127.0.0.1:8080/v1/messages -H 'x-api-key: any-key'",
        ),
    )
    add_rules_option(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("method", metavar="METHOD", type=_method, help="such as POST")
    parser.add_argument("url", metavar="URL", help="the URL that the client addresses, or one of a listener")
    parser.add_argument(
        "-H", dest="headers", action="append", default=[], metavar="'Name: value'", help="request header"
    )
    parser.add_argument("--model", help="model in the body")


def run(arguments: argparse.Namespace) -> int:
    """Print the explanation."""
    try:
        headers = [_header(text) for text in arguments.headers]
        ruleset = announced_rules(arguments).ruleset
        warn(ruleset, os.environ)
        explanation = explain_url(ruleset, arguments.method, arguments.url, headers, arguments.model)
    except ValueError as fault:
        return wrong_usage(str(fault))
    if arguments.json:
        print(json.dumps(explanation.as_json(), indent=2, ensure_ascii=False))
    else:
        lines = visible("\n".join(explanation.lines())).split("\n")
        print("\n".join(map(_coloured, lines) if wants_colour(sys.stdout) else lines))
    return OK


def _method(word: str) -> str:
    if "/" in word:
        raise argparse.ArgumentTypeError(f'"{word}" is a URL; expected a method before it, such as POST')
    return word


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon:
        raise ValueError("-H expects 'Name: value'")
    return name.strip(), value.strip()


# Colours of an explanation's lines by their first word; the request itself is bold.
_COLOURS = {
    "remove": "31",
    "refused": "31",
    "set": "32",
    "upstream": "36",
    "not": "2",
    "but": "33",
    "rule": "1",
}


def _coloured(line: str) -> str:
    if not line.startswith("  "):
        return f"\x1b[1m{line}\x1b[0m"
    colour = _COLOURS.get(line.split()[0])
    return f"\x1b[{colour}m{line}\x1b[0m" if colour else line
