"""`export`: export the rules as an Envoy configuration."""

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from ..envoy import Listener, Options, files, find_unsupported
from ..envoy.export_options import DEFAULT_CA, parse_address
from ..rules.fields import parse_size
from ..rules.problems import RulesError
from ..wire.addresses import normal_host, parse_origin
from .common import OK, Subparsers, add_rules_option, examples, say, wrong_usage
from .rules_source import find_rules, rules_line
from .saving import whole_file

T = TypeVar("T")


def add(commands: Subparsers) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "export",
        run=run,
        help="export the rules as an Envoy configuration",
        description="Export the rules as an Envoy configuration. The files contain no secret.",
        epilog=examples(
            "export envoy --rules rules.yaml -o envoy",
            "export envoy --listen 8080=api.anthropic.com --listen 8081=api.openai.com",
        ),
    )
    parser.add_argument("engine", metavar="ENGINE", choices=["envoy"], help="envoy")
    add_rules_option(parser)
    _add_addresses(parser)
    _add_folders(parser)
    _add_limits(parser)


def _add_addresses(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--listen", action="append", metavar="[ADDRESS:]PORT[=HOST]",
        help="listener, and the host that its clients address (default 8080=api.anthropic.com)",
    )  # fmt: skip
    parser.add_argument(
        "--admin", default="127.0.0.1:9901", metavar="ADDRESS:PORT", help="address of Envoy's admin pages"
    )
    parser.add_argument("--metrics", metavar="ADDRESS:PORT", help="serve /stats/prometheus and /ready here")


def _add_folders(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("envoy"), metavar="DIR",
        help="folder to write to (default %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--config-dir",
        metavar="DIR",
        help="folder that holds these files on Envoy's machine (default: DIR of -o)",
    )
    parser.add_argument(
        "--secrets", default="/run/secrets/mitm-gateway", metavar="DIR",
        help="folder with a file for each credential; `token-files` writes it",
    )  # fmt: skip
    parser.add_argument("--ca", default=DEFAULT_CA, metavar="FILE", help="CA file for upstreams")
    parser.add_argument(
        "--log", default="/dev/stdout", metavar="FILE", help="access log, one JSON line for each request"
    )


def _add_limits(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--clients", metavar="FILE", help="file of client keys; required for other machines")
    parser.add_argument(
        "--gateway-host", action="append", default=[], metavar="NAME", help="additional Host name to accept"
    )
    parser.add_argument(
        "--origin", action="append", default=[], metavar="URL", help="web origin that may use the listeners"
    )
    parser.add_argument(
        "--body-limit", default="64MiB", metavar="SIZE", help="largest request body (default %(default)s)"
    )
    parser.add_argument(
        "--tokens", action="store_true",
        help="log token counts, as gateway_log does; responses are read for that",
    )  # fmt: skip


def run(arguments: argparse.Namespace) -> int:
    """Write the files. Raises RulesError if the rules cannot be exported."""
    try:
        options = _options(arguments)
    except ValueError as fault:
        return wrong_usage(str(fault))
    source = find_rules(arguments.rules, os.environ)
    if problems := find_unsupported(source.ruleset, options):
        raise RulesError(problems)
    for name, text in files(source.ruleset, options).items():
        file = arguments.output / name
        file.parent.mkdir(parents=True, exist_ok=True)
        # Envoy may run as another user.
        with whole_file(file, mode=0o644) as whole:
            whole.write(text)
        print(file)
    say(rules_line(source))
    return OK


def _options(arguments: argparse.Namespace) -> Options:
    listeners = tuple(map(Listener.parse, arguments.listen or ["8080"]))
    if not arguments.clients and not all(listener.is_local for listener in listeners):
        raise ValueError(
            "a listener that other machines can reach needs --clients FILE with a key for each client"
        )
    admin = _parsed("--admin", parse_address, arguments.admin)
    metrics = _parsed("--metrics", parse_address, arguments.metrics) if arguments.metrics else None
    places = [(listener.address, listener.port) for listener in listeners] + [admin, metrics]
    if twice := next((place for place in filter(None, places) if places.count(place) > 1), None):
        raise ValueError(
            f"{twice[0]}:{twice[1]} is given twice; expected one for each of --listen, --admin, --metrics"
        )
    return Options(
        listeners=listeners,
        admin=admin,
        metrics=metrics,
        config_dir=arguments.config_dir or str(arguments.output.resolve()),
        secrets_dir=str(Path(arguments.secrets).absolute()),
        clients=str(Path(arguments.clients).absolute()) if arguments.clients else None,
        hosts=tuple(_parsed("--gateway-host", normal_host, host) for host in arguments.gateway_host),
        origins=tuple(_parsed("--origin", parse_origin, origin) for origin in arguments.origin),
        body_limit=_parsed("--body-limit", parse_size, arguments.body_limit),
        ca=arguments.ca,
        log=arguments.log,
        tokens=arguments.tokens,
    )


def _parsed(option: str, parse: Callable[[str], T], text: str) -> T:
    """Parse the value of an option. Raises ValueError that names the option."""
    try:
        return parse(text)
    except ValueError as fault:
        raise ValueError(f'{option} "{text}": {fault}') from None
