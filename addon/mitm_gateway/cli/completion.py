"""`completion`: print a completion script, generated from the definition of the commands."""

import argparse
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from .common import OK, PROGRAM, Subparsers, examples, fish_quoted


@dataclass(frozen=True, slots=True)
class Completable:
    """A command: its words and help, and the options and words that may follow."""

    words: tuple[str, ...]
    help: str
    options: tuple[tuple[str, str], ...]
    choices: tuple[str, ...]

    @property
    def following(self) -> str:
        """The words and options that may follow."""
        return " ".join((*self.choices, *(name for name, _ in self.options)))


def add(commands: Subparsers, parser: argparse.ArgumentParser) -> None:
    """Add the subcommand; `parser` defines what is completed."""

    def run(arguments: argparse.Namespace) -> int:
        print(completion_script(parser, arguments.shell))
        return OK

    completion = commands.add_parser(
        "completion",
        run=run,
        help="print the completion script of a shell",
        description="Print the completion script of a shell.",
        epilog=examples(
            "completion bash > ~/.local/share/bash-completion/completions/mitm-gateway",
            "completion fish > ~/.config/fish/completions/mitm-gateway.fish",
        ),
    )
    completion.add_argument("shell", metavar="SHELL", choices=tuple(_SCRIPTS), help=", ".join(_SCRIPTS))


def completion_script(parser: argparse.ArgumentParser, shell: str) -> str:
    """Return the completion script for bash, zsh or fish."""
    return _SCRIPTS[shell](tuple(_commands(parser, (), "")))


def _commands(parser: argparse.ArgumentParser, words: tuple[str, ...], text: str) -> Iterator[Completable]:
    options: list[tuple[str, str]] = []
    choices: list[str] = []
    below: list[Completable] = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            texts = {choice.dest: choice.help or "" for choice in action._choices_actions}
            for name, inner in action.choices.items():
                choices.append(name)
                below += _commands(inner, (*words, name), texts.get(name, ""))
        elif action.option_strings:
            options += [(option, action.help or "") for option in action.option_strings if option != "-h"]
        elif action.choices:
            choices += map(str, action.choices)
    yield Completable(words, text, tuple(options), tuple(choices))
    yield from below


def _bash(commands: Sequence[Completable]) -> str:
    cases = "\n".join(
        f"    {shlex.quote(' '.join(each.words))}) words={shlex.quote(each.following)} ;;"
        for each in commands
    )
    known = "|".join(" ".join(each.words) for each in commands if each.words)
    return f"""\
_mitm_gateway() {{
  local word key="" words="" current="${{COMP_WORDS[COMP_CWORD]}}"
  for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
    case "$word" in --) COMPREPLY=($(compgen -c -f -- "$current")); return ;; -*) ;; *)
      case "|{known}|" in *"|${{key:+$key }}$word|"*) key="${{key:+$key }}$word" ;; esac ;;
    esac
  done
  case "$key" in
{cases}
  esac
  COMPREPLY=($(compgen -W "$words" -- "$current"))
  [[ $current == -* || ${{#COMPREPLY[@]}} -gt 0 ]] || COMPREPLY=($(compgen -f -- "$current"))
}}
complete -o filenames -F _mitm_gateway {PROGRAM}"""


def _zsh(commands: Sequence[Completable]) -> str:
    # zsh runs completions written for bash; `bashcompinit` is part of it.
    return f"autoload -U +X bashcompinit && bashcompinit\n{_bash(commands)}"


def _fish(commands: Sequence[Completable]) -> str:
    lines = [f"complete -c {PROGRAM} -f"]
    helps = {each.words: each.help for each in commands}
    for each in commands:
        condition = fish_quoted(_fish_condition(each))
        begin = f"complete -c {PROGRAM} -n {condition}"
        lines += [
            f"{begin} -a {fish_quoted(choice)}{_fish_help(helps, each, choice)}" for choice in each.choices
        ]
        lines += [
            f"{begin} -l {option.lstrip('-')} -d {fish_quoted(text)}"
            for option, text in each.options
            if option.startswith("--")
        ]
    return "\n".join(lines)


def _fish_condition(command: Completable) -> str:
    if not command.words:
        return "__fish_use_subcommand"
    return "; and ".join(f"__fish_seen_subcommand_from {word}" for word in command.words)


def _fish_help(helps: Mapping[tuple[str, ...], str], command: Completable, choice: str) -> str:
    text = helps.get((*command.words, choice))
    return f" -d {fish_quoted(text)}" if text else ""


_SCRIPTS: dict[str, Callable[[Sequence[Completable]], str]] = {"bash": _bash, "zsh": _zsh, "fish": _fish}
