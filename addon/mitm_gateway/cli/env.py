"""`env`: print the shell commands that point clients at a running gateway."""

from __future__ import annotations

import argparse
import os
import shlex
from pathlib import Path

from ..clients import environment
from ..clients.environment import Changes
from ..rules.ruleset import RuleSet
from .common import OK, Subparsers, add_rules_option, config_folder, read_rules, wrong_usage
from .run import ca_certificate

_SHELLS = ("bash", "fish", "powershell")


def add(commands: Subparsers) -> None:
    """Add the subcommand."""
    parser = commands.add_parser("env", help="print the variables for clients of a running gateway")
    parser.set_defaults(run=run)
    add_rules_option(parser)
    parser.add_argument("--shell", choices=_SHELLS, help="syntax of the commands (default: from $SHELL)")
    parser.add_argument("--port", type=int, default=8080, help="port of the gateway (default %(default)s)")
    parser.add_argument("--host", help="host that clients mean, as in `serve --host`")
    parser.add_argument("--intercept", action="store_true", help="for a gateway that is an HTTPS proxy")


def run(arguments: argparse.Namespace) -> int:
    """Print the commands."""
    ruleset = read_rules(arguments.rules)
    url = f"http://127.0.0.1:{arguments.port}"
    changes = _intercept(ruleset, url) if arguments.intercept else _reverse(ruleset, url, arguments.host)
    if isinstance(changes, str):
        return wrong_usage(changes)
    print("\n".join(lines(changes, arguments.shell or shell_of(os.environ.get("SHELL", "")))))
    return OK


def _reverse(ruleset: RuleSet, url: str, host: str | None) -> Changes | str:
    targets = [each for each in environment.targets(ruleset, os.environ) if host in (None, each.host)]
    if not targets:
        return "no rule covers a host that has a base URL variable; see --intercept"
    return environment.reverse(ruleset, [(targets[0], url)], os.environ)


def _intercept(ruleset: RuleSet, url: str) -> Changes | str:
    ca, bundle = ca_certificate(), config_folder() / "ca-bundle.pem"
    if not ca.is_file():
        return f"{ca} is not there yet; start the gateway once"
    bundle.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    others = {name: value for name, value in os.environ.items() if value != str(bundle)}
    bundle.write_bytes(environment.ca_bundle(ca, others))
    return environment.intercept(ruleset, url, ca, bundle, os.environ)


def shell_of(program: str) -> str:
    """Return the syntax that the user's shell reads."""
    name = Path(program).name
    return "fish" if name == "fish" else "powershell" if name == "pwsh" else "bash"


def lines(changes: Changes, shell: str) -> list[str]:
    """Return the changes as commands of a shell; the first line unsets variables that hold another key."""
    match shell:
        case "fish":
            unset = [f"set -e {' '.join(changes.unset)}"] if changes.unset else []
            return unset + [f"set -gx {name} {_fish(value)}" for name, value in changes.set.items()]
        case "powershell":
            names = ", ".join(f"Env:{name}" for name in changes.unset)
            unset = [f"Remove-Item -ErrorAction SilentlyContinue {names}"] if names else []
            return unset + [f"$Env:{name} = {_powershell(value)}" for name, value in changes.set.items()]
        case _:
            unset = [f"unset {' '.join(changes.unset)}"] if changes.unset else []
            return unset + [f"export {name}={shlex.quote(value)}" for name, value in changes.set.items()]


def _fish(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _powershell(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
