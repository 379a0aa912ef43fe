"""`env`: the lines that lead the clients of a shell to a gateway that runs there."""

from __future__ import annotations

import argparse
import os
import shlex
from pathlib import Path

from ..clients import environment
from ..clients.environment import Changes
from .common import OK, Commands, add_rules, config_folder, read_rules, wrong_usage
from .run import ca_bundle

_SHELLS = ("bash", "fish", "powershell")


def add(commands: Commands) -> None:
    """Adds the subcommand."""
    parser = commands.add_parser("env", help="print the variables for clients of a running gateway")
    parser.set_defaults(run=run)
    add_rules(parser)
    parser.add_argument("--shell", choices=_SHELLS, help="form of the lines (default: of $SHELL)")
    parser.add_argument("--port", type=int, default=8080, help="port of the gateway (default 8080)")
    parser.add_argument("--host", default=None, help="host that the gateway stands for, as in `serve --host`")
    parser.add_argument("--intercept", action="store_true", help="for a gateway that is an HTTPS proxy")


def run(arguments: argparse.Namespace) -> int:
    """Prints the lines."""
    ruleset = read_rules(arguments.rules)
    url = f"http://127.0.0.1:{arguments.port}"
    if arguments.intercept:
        ca = Path.home() / ".mitmproxy" / "mitmproxy-ca-cert.pem"
        if not ca.is_file():
            return wrong_usage(f"{ca} is not there yet; start the gateway once")
        bundle = config_folder() / "ca-bundle.pem"
        bundle.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        bundle.write_bytes(
            ca_bundle(ca, {name: value for name, value in os.environ.items() if value != str(bundle)})
        )
        changes = environment.intercept(ruleset, url, ca, bundle, os.environ)
    else:
        targets = environment.targets(ruleset, os.environ)
        fitting = [target for target in targets if arguments.host in (None, target.host)][:1]
        if not fitting:
            return wrong_usage("no rule is about a host with a base URL to set; see --intercept")
        changes = environment.reverse(ruleset, [(fitting[0], url)], os.environ)
    print("\n".join(lines(changes, arguments.shell or shell_of(os.environ.get("SHELL", "")))))
    return OK


def shell_of(program: str) -> str:
    """The form of lines for the user's shell."""
    name = Path(program).name
    return "fish" if name == "fish" else "powershell" if name == "pwsh" else "bash"


def lines(changes: Changes, shell: str) -> list[str]:
    """The changes as commands of a shell. The first line takes away what would give a second key."""
    match shell:
        case "fish":
            gone = [f"set -e {' '.join(changes.unset)}"] if changes.unset else []
            return gone + [f"set -gx {name} {_fish(value)}" for name, value in changes.set.items()]
        case "powershell":
            names = ", ".join(f"Env:{name}" for name in changes.unset)
            gone = [f"Remove-Item -ErrorAction SilentlyContinue {names}"] if names else []
            return gone + [f"$Env:{name} = {_powershell(value)}" for name, value in changes.set.items()]
        case _:
            gone = [f"unset {' '.join(changes.unset)}"] if changes.unset else []
            return gone + [f"export {name}={shlex.quote(value)}" for name, value in changes.set.items()]


def _fish(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _powershell(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
