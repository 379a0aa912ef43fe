"""The command line: its parser, and the command that it names."""

import argparse
import contextlib
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from .. import __version__
from ..rules.problems import RulesError
from ..text.printable import one_line
from . import (
    check,
    completion,
    doctor,
    env,
    explain,
    export,
    flows,
    init,
    presets,
    run,
    schema,
    script,
    serve,
    stats,
    token,
    token_files,
)
from .common import FAULT, INTERRUPTED, PROGRAM, print_fault
from .parser import Parser

_COMMANDS = (
    run, serve, check, explain, init, presets, env, doctor, flows, stats, token, export, token_files, schema, script,
)  # fmt: skip
_EXAMPLES = """\
examples:
  mitm-gateway run claude                a client, and a gateway for it
  mitm-gateway serve --port 8080         the gateway until Ctrl-C
  mitm-gateway init github-copilot       a rules file for a known provider
  mitm-gateway check rules.yaml          every mistake, with line and column

exit status: 0; 1 if a fault was found; 2 for wrong usage. `run` returns the client's exit status."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status: 0, 1 for a fault found, 2 for wrong usage."""
    _open_closed_streams()
    _buffer_lines()
    arguments = _arguments(argv)
    try:
        status: int = arguments.run(arguments)
        sys.stdout.flush()
    except RulesError as fault:
        print_fault(fault)
        return FAULT
    except BrokenPipeError:
        # The reader of the output has ended. Python would report that again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAULT
    except OSError as fault:
        # A missing folder or a full disk is no defect of the program, so there is no traceback.
        place = one_line(str(fault.filename or "fault"))
        print_fault(f"mitm-gateway: {place}: {fault.strerror or fault}")
        return FAULT
    except KeyboardInterrupt:
        return INTERRUPTED
    return status


def _open_closed_streams() -> None:
    """Reopen the standard streams that the caller has closed, so that no other file takes their place."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            stream = Path(os.devnull).open(mode, encoding="utf-8")  # noqa: SIM115 - open to the end
            setattr(sys, name, stream)


def _buffer_lines() -> None:
    """Flush every line, also to a file or a pipe, and escape characters that the encoding lacks."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            with contextlib.suppress(OSError, ValueError):
                stream.reconfigure(line_buffering=True, errors="backslashreplace")


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = build_parser()
    given = tuple(sys.argv[1:] if argv is None else argv)
    parser.given = given
    arguments, unknown = parser.parse_known_args(given)
    arguments.given = given
    if unknown:
        arguments.parser.refuse_unknown(unknown)
    return arguments


def build_parser() -> Parser:
    """Return the parser of all commands."""
    parser = Parser(
        prog=PROGRAM,
        description="Let any LLM client use any gateway, by rules, inside mitmproxy.",
        epilog=_EXAMPLES,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=Parser)
    for command in _COMMANDS:
        command.add(commands)
    completion.add(commands, parser)
    return parser
