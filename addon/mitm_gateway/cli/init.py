"""`init`: write a commented rules file for a preset."""

import argparse
import textwrap
from pathlib import Path

from ..rules import presets
from .common import FAULT, OK, Subparsers, default_rules, examples, say
from .presets import COMMENT_WIDTH
from .saving import whole_file


def add(commands: Subparsers) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "init",
        run=run,
        help="write a commented rules file for a preset",
        description="Write a commented rules file for a preset. An existing file is kept unless --force is given.",
        epilog=examples("init litellm", "init github-copilot --rules copilot.yaml"),
    )
    names = presets.names()
    parser.add_argument("preset", metavar="PRESET", choices=names, help=", ".join(names))
    parser.add_argument(
        "--rules", type=Path, metavar="FILE", help=f"file to write (default {default_rules()})"
    )
    parser.add_argument("--force", action="store_true", help="overwrite an existing file")


def run(arguments: argparse.Namespace) -> int:
    """Write the file and print the next commands."""
    path: Path = arguments.rules or default_rules()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        with whole_file(path, overwrite=arguments.force) as file:
            file.write(starter(arguments.preset))
    except FileExistsError:
        say(f"{path}: the file exists; --force overwrites it")
        return FAULT
    print(f"{path}: written; fill in the values that its comments name, then run")
    print(f"    mitm-gateway check{f' {path}' if arguments.rules else ''}")
    print(f"    mitm-gateway run{f' --rules {path}' if arguments.rules else ''} -- claude")
    return OK


def starter(name: str) -> str:
    """Return the text of the rules file for a preset."""
    data = presets.content(name)
    comments = [
        f"{data['title']}, as of {data['date']}; `mitm-gateway presets {name}` shows everything.",
        *(f"Unverified: {fact}" for fact in data["unverified"]),
        *data["notes"],
    ]
    lines = [line for text in comments for line in textwrap.wrap(text, COMMENT_WIDTH, break_long_words=False)]
    head = "\n".join(f"# {line}" for line in lines)
    return f"{head}\nversion: 1\n\n{data['starter']}"
