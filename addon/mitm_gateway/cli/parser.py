"""The argument parser: like argparse's, with one-line errors that name the nearest command or option."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable
from typing import NoReturn

from ..rules.problems import did_you_mean
from .common import USAGE, say

_INVALID_CHOICE = re.compile(r"argument [^:]+: invalid choice: '([^']*)'")


class Parser(argparse.ArgumentParser):
    """A parser of a command or subcommand."""

    def __init__(self, *args: object, **options: object) -> None:
        # An abbreviated option would change its meaning with the next one that begins alike.
        settings = {"allow_abbrev": False, "formatter_class": argparse.RawDescriptionHelpFormatter}
        super().__init__(*args, **{**settings, **options})  # type: ignore[arg-type]

    def error(self, message: str) -> NoReturn:
        """Print the fault in one line, the way to the help in another, and exit with status 2."""
        if found := _INVALID_CHOICE.match(message):
            expected = self._choices(found[1])
            hint = did_you_mean(found[1], expected) or f"; expected one of {', '.join(expected)}"
            message = f'unknown {"command" if expected == self._commands() else "value"} "{found[1]}"{hint}'
        elif message.endswith("required: COMMAND"):
            message = f"a command is missing; expected one of {', '.join(self._commands())}"
        say(message)
        self.exit(USAGE, f"       see `{self.prog} --help`\n")

    def refuse_unknown(self, words: Iterable[str]) -> NoReturn:
        """Report words that no option or argument takes, and exit with status 2."""
        word = next(iter(words))
        name = word.partition("=")[0]
        kind = "option" if word.startswith("-") else "argument"
        self.error(f'unknown {kind} "{name}"{did_you_mean(name, self._options())}')

    def _options(self) -> list[str]:
        return [option for action in self._actions for option in action.option_strings]

    def _commands(self) -> list[str]:
        return [
            name
            for action in self._actions
            if isinstance(action, argparse._SubParsersAction)
            for name in action.choices
        ]

    def _choices(self, wrong: str) -> list[str]:
        """Return the words that were expected where a wrong one was given."""
        commands = self._commands()
        choices = [str(each) for action in self._actions if action.choices for each in action.choices]
        return commands or [each for each in choices if each != wrong]
