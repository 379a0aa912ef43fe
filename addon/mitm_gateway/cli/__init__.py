"""The command `mitm-gateway`: one module for each subcommand."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from .. import __version__
from ..rules.problems import RulesError
from . import (
    check,
    completion,
    doctor,
    env,
    explain,
    export,
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
from .common import FAULT, INTERRUPTED, default_rules, say

__all__ = ["default_rules", "main"]

_COMMANDS = (
    run, serve, check, explain, init, presets, env, doctor, stats, token, export, token_files, schema, script,
)  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status: 0, 1 for a fault found, 2 for wrong usage."""
    arguments = _parser().parse_args(argv)
    try:
        status: int = arguments.run(arguments)
    except RulesError as fault:
        print(fault, file=sys.stderr)
        return FAULT
    except BrokenPipeError:
        # The reader of the output has ended. Python would report that again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAULT
    except OSError as fault:
        # A missing folder or a full disk is no defect of the program, so there is no traceback.
        say(f"{fault.filename or 'fault'}: {fault.strerror or fault}")
        return FAULT
    except KeyboardInterrupt:
        return INTERRUPTED
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mitm-gateway", description="Let any LLM client use any gateway, by rules, inside mitmproxy."
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in _COMMANDS:
        command.add(commands)
    completion.add(commands, parser)
    return parser
