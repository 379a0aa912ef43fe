"""The argument parser: like argparse's, with one-line errors that name the nearest command or option."""

import argparse
import re
import textwrap
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NoReturn

from ..rules.problems import did_you_mean
from .common import USAGE, say

_INVALID_CHOICE = re.compile(r"argument ([^:]+): invalid choice: '([^']*)'")
_MISSING = "the following arguments are required: "
_NO_VALUE = re.compile(r"argument ([^:]+): expected (?:one|at least one) argument")
_OF_AN_ARGUMENT = re.compile(r"argument ([^:]+): (.*)", re.DOTALL)
# Words of other programs for a command.
_OTHER_WORDS = {
    "start": "serve", "up": "serve", "proxy": "serve", "server": "serve", "launch": "run", "exec": "run", "with": "run",
    "validate": "check", "lint": "check", "verify": "check", "test": "check", "new": "init", "setup": "init",
    "config": "init", "providers": "presets", "list": "presets", "diagnose": "doctor", "status": "doctor",
    "envoy": "export envoy", "why": "explain", "dry-run": "explain", "usage": "stats",
}  # fmt: skip
_MOST_OPTIONS = 5
# A line break inside a paragraph: neither an empty line nor an indented one follows, and no heading precedes.
_JOINED = re.compile(r"(?<=[^\n:])\n(?=[^\s])")


class _Help(argparse.HelpFormatter):
    """Help that keeps indented lines, joins all others to paragraphs, and breaks long lines between words."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n".join(
            textwrap.fill(line, width, initial_indent=indent, subsequent_indent=f"{indent}{_indent_of(line)}",
                          replace_whitespace=False, break_long_words=False, break_on_hyphens=False)
            for line in _JOINED.sub(" ", text).splitlines()
        )  # fmt: skip

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(" ".join(text.split()), width, break_long_words=False, break_on_hyphens=False)


def _indent_of(line: str) -> str:
    own = line[: len(line) - len(line.lstrip())]
    return f"{own}    " if own else ""


class Parser(argparse.ArgumentParser):
    """A parser of a command or subcommand."""

    given: Sequence[str] = ()
    """The words that are parsed."""

    def __init__(self, *args: Any, run: Callable[..., int] | None = None, **options: Any) -> None:
        # An abbreviated option would change its meaning with the next one that begins alike.
        settings = {"allow_abbrev": False, "formatter_class": _Help}
        super().__init__(*args, **{**settings, **options})
        self.set_defaults(parser=self, run=run)

    def error(self, message: str) -> NoReturn:
        """Print the fault in one line, the way to the help in another, and exit with status 2."""
        say(self._in_our_words(message))
        self.exit(USAGE, f"       see `{self.prog} --help`\n")

    def refuse_unknown(self, words: Iterable[str]) -> NoReturn:
        """Report words that no option or argument takes, and exit with status 2."""
        word = next(iter(words))
        name = word.partition("=")[0]
        if not word.startswith("-"):
            self.error(f'unknown argument "{name}"')
        known = self._options()
        hint = did_you_mean(name, known)
        if not hint and len(known) <= _MOST_OPTIONS:
            hint = f"; expected one of {', '.join(known)}"
        self.error(f'unknown option "{name}"{hint}')

    def _in_our_words(self, message: str) -> str:
        if found := _INVALID_CHOICE.match(message):
            return self._unknown_word(found[1], found[2])
        if message.startswith(_MISSING):
            return self._missing(message.removeprefix(_MISSING).split(", "))
        if found := _NO_VALUE.match(message):
            return f"{found[1]} has no value"
        if found := _OF_AN_ARGUMENT.match(message):
            return f"{found[1]}: {found[2]}"
        return message

    def _unknown_word(self, kind: str, word: str) -> str:
        commands = self._commands()
        expected = commands or self._choices(kind)
        other = _OTHER_WORDS.get(word.lower()) if "run" in commands else None
        if word.lower() in ("help", "version") and "run" in commands:
            other = f"--{word.lower()}"
        hint = f' (did you mean "{other}"?)' if other else did_you_mean(word, expected)
        name = "value" if kind.startswith("-") else kind.lower()
        hint = hint or f"; expected one of {', '.join(expected)}"
        return f'unknown {name} "{word}"{hint}'

    def _missing(self, names: Sequence[str]) -> str:
        if commands := self._commands():
            if options := [word for word in self.given if word.startswith("-")]:
                return f'unknown option "{options[0]}"{did_you_mean(options[0], self._options())}'
            return f"a {names[0].lower()} is missing; expected one of {', '.join(commands)}"
        verb = "is" if len(names) == 1 else "are"
        choices = self._choices(names[0])
        expected = f"; expected one of {', '.join(choices)}" if choices and len(names) == 1 else ""
        return f"{' and '.join(names)} {verb} missing{expected}"

    def _options(self) -> list[str]:
        return [option for action in self._actions for option in action.option_strings]

    def _commands(self) -> list[str]:
        return [
            name
            for action in self._actions
            if isinstance(action, argparse._SubParsersAction)
            for name in action.choices
        ]

    def _choices(self, name: str) -> list[str]:
        """Return the words that an argument or option takes, if they are listed."""
        for action in self._actions:
            if action.choices and name in ("/".join(action.option_strings), action.metavar, action.dest):
                return [str(each) for each in action.choices]
        return []
