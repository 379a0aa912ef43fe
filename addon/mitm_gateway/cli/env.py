"""`env`: print the shell commands that point clients at a running gateway."""

import argparse
import os
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

from ..clients import catalogue, environment
from ..clients.catalogue import Client
from ..clients.environment import Changes
from ..clients.network import ca_bundle
from ..rules.ruleset import RuleSet
from .common import (
    OK,
    Subparsers,
    add_host_option,
    add_port_option,
    add_rules_option,
    ca_certificate,
    config_folder,
    fish_quoted,
    say,
    wrong_usage,
)
from .rules_source import announced_rules
from .serve import served_hosts

# Without quotes, which some shells match in comments as well.
_COMMENT = "# for the gateway only, as they hold its keys: {} (start it in a shell where they are set)"
_EXAMPLES = """\
examples:
  eval "$(mitm-gateway env)"
  eval "$(mitm-gateway env --client aider)"
  eval "$(mitm-gateway env --intercept)"
  mitm-gateway env --shell fish | source"""


# How each shell unsets variables, separates their names, sets one, and quotes a text.
_SHELLS: dict[str, tuple[str, str, str, Callable[[str], str]]] = {
    "bash": ("unset {}", " ", "export {}={}", shlex.quote),
    "fish": ("set -e {}", " ", "set -gx {} {}", fish_quoted),
    "powershell": ("Remove-Item -ErrorAction SilentlyContinue Env:{}", ", Env:", "$Env:{} = {}",
                   lambda text: "'" + text.replace("'", "''") + "'"),
}  # fmt: skip


def add(commands: Subparsers) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "env",
        run=run,
        help="print the variables for clients of a running gateway",
        description="Print the shell commands that point clients at a gateway that `serve` runs.",
        epilog=_EXAMPLES,
    )
    add_rules_option(parser)
    parser.add_argument("--client", metavar="NAME", help="client that reads the variables (default: all)")
    parser.add_argument(
        "--shell", choices=tuple(_SHELLS), help="syntax of the commands (default: from $SHELL)"
    )
    add_port_option(parser)
    add_host_option(parser, "host that the client addresses, as in `serve --host`")
    parser.add_argument("--intercept", action="store_true", help="for a gateway that runs with --intercept")


def run(arguments: argparse.Namespace) -> int:
    """Print the commands."""
    try:
        client = catalogue.named(arguments.client or catalogue.SHELL)
    except ValueError as fault:
        return wrong_usage(str(fault))
    ruleset = announced_rules(arguments, demo=True).ruleset
    changes = (
        _intercept(ruleset, client, arguments.port)
        if arguments.intercept
        else _reverse(ruleset, client, arguments)
    )
    if isinstance(changes, str):
        return wrong_usage(changes)
    changes = changes.in_folder(config_folder())
    shell = arguments.shell or shell_of(os.environ.get("SHELL", ""))
    print("\n".join(lines(changes, shell, environment.gateway_keys(ruleset, os.environ))))
    if changes.arguments and client.programs:
        say(f"start {client.programs[0]} with these arguments: {shlex.join(changes.arguments)}", wraps=False)
    return OK


def _reverse(ruleset: RuleSet, client: Client, arguments: argparse.Namespace) -> Changes | str:
    hosts = served_hosts(ruleset, arguments.host)
    urls = {target: f"http://127.0.0.1:{arguments.port + number}" for number, target in enumerate(hosts)}
    fitting = environment.reachable(client, hosts)
    if not fitting:
        return "no rule covers a host that has a base URL variable; see --intercept"
    return environment.reverse(ruleset, client, [(target, urls[target]) for target in fitting], os.environ)


def _intercept(ruleset: RuleSet, client: Client, port: int) -> Changes | str:
    ca, bundle = ca_certificate(), config_folder() / "ca-bundle.pem"
    if not ca.is_file():
        return f"{ca} does not exist yet; start the gateway once"
    bundle.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    others = {name: value for name, value in os.environ.items() if value != str(bundle)}
    bundle.write_bytes(ca_bundle(ca, others))
    return environment.intercept(ruleset, client, f"http://127.0.0.1:{port}", bundle, os.environ)


def shell_of(program: str) -> str:
    """Return the syntax that the user's shell reads."""
    name = Path(program).name
    return "fish" if name == "fish" else "powershell" if name == "pwsh" else "bash"


def lines(changes: Changes, shell: str, gateway_keys: Sequence[str] = ()) -> list[str]:
    """Return the changes as shell commands, below a comment if they unset a key of the gateway."""
    gone = " and ".join(name for name in changes.unset if name in gateway_keys)
    return [_COMMENT.format(gone), *_commands(changes, shell)] if gone else _commands(changes, shell)


def _commands(changes: Changes, shell: str) -> list[str]:
    """Return the commands; the first line unsets variables that contain another key."""
    unset, comma, put, quoted = _SHELLS[shell]
    gone = [unset.format(comma.join(changes.unset))] if changes.unset else []
    return gone + [put.format(name, quoted(value)) for name, value in changes.set.items()]
