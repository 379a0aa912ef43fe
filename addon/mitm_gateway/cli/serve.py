"""`serve`: run the gateway until it is interrupted."""

import argparse
import asyncio
import errno
import os
import shlex
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count
from pathlib import Path

from ..clients import catalogue, environment
from ..clients.api_hosts import HTTPS, CoveredHost, covered_hosts
from ..rules.ruleset import RuleSet
from ..wire.addresses import parse_authority
from .check import warn_of_missing
from .common import (
    DEFAULT_PORT,
    FAULT,
    PROGRAM,
    Subparsers,
    add_host_option,
    add_port_option,
    add_rules_option,
    ca_certificate,
    print_fault,
    say,
    wrong_usage,
)
from .console import call_when_ready, tune_log
from .gateway_process import is_written
from .mitmproxy_options import (
    add_proxy_options,
    listener_modes,
    mitmproxy_arguments,
    option_fault,
    settings_fault,
    settings_folder,
    upstream_trust,
)
from .mitmproxy_process import run_tool
from .rules_source import RulesSource, announced_rules
from .saving import SaveError, add_save_option, recording

# A client without a variable for its base URL needs the proxy in any case.
_MOST_LISTENERS = 32
_EXAMPLES = """\
examples:
  mitm-gateway serve                         one reverse proxy per host
  mitm-gateway serve --intercept --web       an HTTPS proxy, shown in mitmweb
  mitm-gateway serve --set gateway_log=log.jsonl

In another terminal, `eval "$(mitm-gateway env)"` points clients at it."""


def add(commands: Subparsers) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "serve",
        run=run,
        help="run the gateway until interrupted",
        description="Run the gateway until interrupted: one listener for each host that the rules name.",
        epilog=_EXAMPLES,
    )
    add_rules_option(parser)
    add_proxy_options(parser)
    add_host_option(
        parser, "host that the client addresses; may be repeated (default: the hosts of the rules)"
    )
    parser.add_argument(
        "--listen-host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="address to listen on (default %(default)s)",
    )
    add_port_option(parser)
    add_save_option(parser)
    parser.add_argument("extra", nargs="*", metavar="-- ARGUMENT", help="further arguments for mitmproxy")


def run(arguments: argparse.Namespace) -> int:
    """Serve until interrupted; return mitmproxy's exit status."""
    if fault := option_fault(arguments.set) or _stray(arguments) or settings_fault(arguments.set):
        return wrong_usage(fault)
    source = announced_rules(arguments, demo=True)
    warn_of_missing(source)
    hosts = served_hosts(source.ruleset, arguments.host)
    if not hosts and not arguments.intercept:
        return wrong_usage(
            "the rules name no host without a wildcard; name one with --host, or use --intercept"
        )
    _warn_of_uncovered(source.ruleset, arguments.host or ())
    modes = listener_modes(arguments, hosts, count(arguments.port))
    if fault := port_fault(arguments.listen_host, range(arguments.port, arguments.port + len(modes))):
        print_fault(f"mitm-gateway: {fault}")
        return FAULT
    tune_log(verbose=arguments.verbose)
    say_ready = partial(_say_ready, arguments, source.ruleset, hosts)
    ca = ca_certificate(settings_folder(arguments.set))
    call_when_ready(len(modes), partial(_once_trusted, say_ready, ca) if arguments.intercept else say_ready)
    try:
        with (
            tempfile.TemporaryDirectory(prefix="mitm-gateway-") as folder,
            recording(arguments.save, arguments.set) as save,
        ):
            return _serve(arguments, source, modes, Path(folder), save)
    except SaveError as fault:
        return wrong_usage(str(fault))


def _serve(
    arguments: argparse.Namespace,
    source: RulesSource,
    modes: Sequence[str],
    folder: Path,
    save: Sequence[str],
) -> int:
    file, secrets = source.write(folder, os.environ)
    os.environ.update(secrets)
    # The gateway logs a line for each request of a rule; mitmproxy's own would repeat it.
    quiet = [] if arguments.verbose or arguments.web else ["flow_detail=0"]
    return run_tool(
        "mitmweb" if arguments.web else "mitmdump",
        mitmproxy_arguments(
            arguments,
            file,
            modes=modes,
            port=arguments.port,
            listen_host=arguments.listen_host,
            more=[*quiet, *upstream_trust(folder, os.environ), *save],
            extra=arguments.extra,
        ),
    )


def port_fault(host: str, ports: range) -> str | None:
    """Return the fault of a port that is in use, with the remedy, which mitmproxy's message lacks."""
    for port in ports:
        if port >= 1 << 16:
            return f"port {port} does not exist; choose a smaller one with --port"
        try:
            socket.create_server(
                (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET
            ).close()
        except OSError as fault:
            if fault.errno != errno.EADDRINUSE:
                return None
            first = f" (there is one for each host; the first is {ports[0]})" if port != ports[0] else ""
            return (
                f"port {port} is in use{first}; end the program that uses it, or choose another with --port"
            )
    return None


def _stray(arguments: argparse.Namespace) -> str | None:
    """Return the fault of a word before `--`, which mitmproxy would take for a filter."""
    if not arguments.extra or "--" in arguments.given:
        return None
    word = arguments.extra[0]
    hint = f' (did you mean "--port {word}"?)' if word.isdecimal() else ""
    return f'unknown argument "{word}"{hint}; arguments for mitmproxy follow "--"'


def served_hosts(ruleset: RuleSet, wanted: Sequence[str] | None) -> tuple[CoveredHost, ...]:
    """Return the hosts that get a listener, in the order of their ports. `env` relies on the same order."""
    found = covered_hosts(ruleset, os.environ)
    if wanted:
        known = {target.host: target for target in found}
        found = tuple(known.get(host, CoveredHost(host)) for host in dict.fromkeys(wanted))
    return found[:_MOST_LISTENERS]


def _warn_of_uncovered(ruleset: RuleSet, wanted: Sequence[str]) -> None:
    """Print a warning for each host that the user names and no rule covers."""
    for host in wanted:
        place = parse_authority(host)
        if not ruleset.knows_host(place.host, place.port or HTTPS):
            names = ", ".join(pattern.text for rule in ruleset.rules for pattern in rule.match.host)
            say(
                f"warning: no rule covers {host}; name the API that the client calls, as the rules do: {names}"
            )


def _once_trusted(then: Callable[[], None], ca: Path, attempts: int = 100) -> None:
    """Call back once mitmproxy has written the CA certificate for clients, which it does after it listens."""
    if is_written(ca) or not attempts:
        then()
    else:
        asyncio.get_running_loop().call_later(0.05, _once_trusted, then, ca, attempts - 1)


def _say_ready(arguments: argparse.Namespace, ruleset: RuleSet, hosts: Sequence[CoveredHost]) -> None:
    """Print how to point a client at the gateway."""
    command = [Path(sys.argv[0]).name if shutil.which(PROGRAM) else sys.argv[0], "env"]
    command += ["--rules", str(arguments.rules)] if arguments.rules else []
    command += ["--port", str(arguments.port)] if arguments.port != DEFAULT_PORT else []
    if arguments.intercept:
        say(
            f'HTTPS proxy on port {arguments.port}; for clients: eval "$({shlex.join(command)} --intercept)"',
            wraps=False,
        )
        return
    client = catalogue.load(catalogue.SHELL)
    for number, target in enumerate(hosts):
        url = f"http://127.0.0.1:{arguments.port + number}"
        say(f"{url} serves {target.host}")
        if environment.reachable(client, [target]):
            put = environment.reverse(ruleset, client, [(target, url)], {}).set
            say(f"    {' '.join(f'{name}={value}' for name, value in put.items())}", wraps=False)
    command += [part for host in arguments.host or () for part in ("--host", host)]
    say(f'for all clients of a shell: eval "$({shlex.join(command)})"', wraps=False)
