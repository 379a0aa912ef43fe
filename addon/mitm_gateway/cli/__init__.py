"""The command `mitm-gateway`: one module for each subcommand."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from .. import __version__
from ..rules.problems import RulesError
from . import completion, doctor, env, export, presets, rules, run, serve, stats, token, token_files
from .common import FAULT, INTERRUPTED, default_rules

__all__ = ["default_rules", "main"]

_PARTS = (run, serve, rules, presets, env, doctor, token, export, stats, token_files)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; its exit status: 0, 1 for a fault found, 2 for wrong usage."""
    arguments = _parser().parse_args(argv)
    try:
        status: int = arguments.run(arguments)
    except RulesError as fault:
        print(fault, file=sys.stderr)
        return FAULT
    except BrokenPipeError:
        # What reads our output is gone; without this Python would complain once more at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAULT
    except OSError as fault:
        # A folder that is not there, a full disk: no fault of the program's, so no traceback.
        print(f"mitm-gateway: {fault.filename or 'fault'}: {fault.strerror or fault}", file=sys.stderr)
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
    for part in _PARTS:
        part.add(commands)
    completion.add(commands, parser)
    return parser
