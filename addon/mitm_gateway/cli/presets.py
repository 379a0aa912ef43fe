"""`presets` and `init`: what is known of other people's gateways, and a rules file that begins with it."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import textwrap
from pathlib import Path

from ..rules import presets
from ..rules.problems import did_you_mean
from .common import FAULT, OK, Commands, default_rules, wrong_usage

_WIDTH = 100


def add(commands: Commands) -> None:
    """Adds the subcommands."""
    listing = commands.add_parser("presets", help="list the gateways that are known, with date and source")
    listing.set_defaults(run=_list)
    listing.add_argument("name", nargs="?", metavar="PRESET", help="show all of one preset")

    init = commands.add_parser("init", help="write a rules file that begins with a preset")
    init.set_defaults(run=_init)
    init.add_argument("preset", metavar="PRESET", help=", ".join(presets.names()))
    init.add_argument("--rules", type=Path, metavar="FILE", help=f"file to write (default {default_rules()})")
    init.add_argument("--force", action="store_true", help="write over an existing file")


def _list(arguments: argparse.Namespace) -> int:
    if arguments.name is None:
        for name in presets.names():
            print("\n".join(_described(name)))
        return OK
    if arguments.name not in presets.names():
        return _unknown(arguments.name)
    print("\n".join(_described(arguments.name, notes=True)))
    print(textwrap.indent(presets.rule_text(arguments.name), "    "))
    return OK


def _unknown(name: str) -> int:
    hint = did_you_mean(name, presets.names()) or f"; expected one of {', '.join(presets.names())}"
    return wrong_usage(f"there is no preset of this name{hint}")


def _described(name: str, *, notes: bool = False) -> list[str]:
    data = presets.describe(name)
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
        text, _WIDTH, initial_indent=f"    {label}", subsequent_indent=" " * 16, break_long_words=False
    )


def starter(name: str) -> str:
    """The rules file that `init` writes for a preset."""
    data = presets.describe(name)
    comments = [
        f"{data['title']}, as known on {data['date']}; `mitm-gateway presets {name}` shows all of it."
    ]
    comments += [f"Unverified: {fact}" for fact in data["unverified"]]
    comments += data["notes"]
    lines = [line for text in comments for line in textwrap.wrap(text, _WIDTH, break_long_words=False)]
    head = "\n".join(f"# {line}" for line in lines)
    return f"{head}\nversion: 1\n\n{data['starter']}"


def _init(arguments: argparse.Namespace) -> int:
    if arguments.preset not in presets.names():
        return _unknown(arguments.preset)
    path: Path = arguments.rules or default_rules()
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        _write(path, starter(arguments.preset), over=arguments.force)
    except FileExistsError:
        print(f"{path}: there is a file already; --force writes over it", file=sys.stderr)
        return FAULT
    print(f"{path}: written; fill in what its comments ask for, then")
    rules = f" --rules {path}" if arguments.rules else ""
    print(f"    mitm-gateway check{' ' + str(path) if arguments.rules else ''}")
    print(f"    mitm-gateway run{rules} -- claude")
    return OK


def _write(path: Path, text: str, *, over: bool) -> None:
    """Writes the file whole or not at all, for its owner only."""
    handle, draft = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        if over:
            Path(draft).replace(path)
        else:
            path.hardlink_to(draft)
    finally:
        Path(draft).unlink(missing_ok=True)
