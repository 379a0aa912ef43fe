"""`run`: start a client together with a gateway that it uses without further settings."""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..clients import claude_settings, environment
from ..clients.environment import Changes, Target
from .client_process import NOT_FOUND, run_client
from .common import FAULT, Subparsers, add_rules_option, say, wrong_usage
from .gateway_process import GatewayError, GatewayProcess, free_ports
from .rules_source import RulesSource, find_rules
from .serve import mitmproxy_arguments

_KEPT_LOGS = 20
_STARTS = 3


def add(commands: Subparsers) -> None:
    """Add the subcommand."""
    parser = commands.add_parser("run", help="start a client together with a gateway for it")
    parser.set_defaults(run=run)
    add_rules_option(parser)
    parser.add_argument("--web", action="store_true", help="show the traffic in mitmweb")
    parser.add_argument("--no-browser", action="store_true", help="with --web: do not open a browser")
    parser.add_argument(
        "--intercept",
        action="store_true",
        help="run as an HTTPS proxy, for clients that ignore base URLs",
    )
    parser.add_argument("--log", type=Path, metavar="FILE", help="the gateway's log (default: a new file)")
    parser.add_argument(
        "client", nargs="+", metavar="-- CLIENT ARGUMENT", help="the client and its arguments"
    )


def run(arguments: argparse.Namespace) -> int:
    """Run the client and return its exit status."""
    environ = dict(os.environ)
    program = shutil.which(arguments.client[0])
    if program is None:
        say(f"{arguments.client[0]}: no such program")
        return NOT_FOUND
    with tempfile.TemporaryDirectory(prefix="mitm-gateway-") as folder:
        source = find_rules(arguments.rules, environ, Path(folder))
        targets = environment.targets(source.ruleset, environ)
        if not arguments.intercept and not targets:
            return wrong_usage(
                "no rule covers api.anthropic.com or api.openai.com, so there is no base URL to set; "
                "--intercept covers all hosts"
            )
        session = _Session(arguments, source, targets, arguments.log or new_log(environ), Path(folder))
        try:
            with session.serving() as (gateway, changes):
                return _run_client(session, gateway, changes, program)
        except GatewayError as fault:
            say(f"the gateway did not start:\n{fault}")
            return FAULT


def new_log(environ: Mapping[str, str]) -> Path:
    """Return the path of a new log file and delete the oldest ones of earlier runs."""
    base = environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    folder = Path(base) / "mitm-gateway"
    for old in sorted(folder.glob("run-*.log"), reverse=True)[_KEPT_LOGS - 1 :]:
        old.unlink(missing_ok=True)
    return folder / f"run-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log"


@dataclass(frozen=True, slots=True)
class _Session:
    """Everything that is settled before the gateway starts."""

    arguments: argparse.Namespace
    source: RulesSource
    targets: Sequence[Target]
    log: Path
    folder: Path

    @contextmanager
    def serving(self) -> Iterator[tuple[GatewayProcess, Changes]]:
        """Start the gateway; yield it with the changes to the client's environment. Raises GatewayError."""
        for attempt in range(1, _STARTS + 1):
            ports = free_ports(1 if self.arguments.intercept else len(self.targets))
            with self._start(ports) as gateway:
                try:
                    gateway.wait_until_ready(ca_certificate() if self.arguments.intercept else None)
                except GatewayError:
                    if attempt < _STARTS and gateway.lost_a_port():
                        continue
                    raise
                yield gateway, self._changes(ports)
                return

    def _start(self, ports: Sequence[int]) -> GatewayProcess:
        web, modes = self.arguments.web, ["regular"]
        if not self.arguments.intercept:
            pairs = zip(self.targets, ports, strict=True)
            modes = [f"reverse:https://{target.host}@{port}" for target, port in pairs]
        extra = ["--web-port", str(free_ports(1)[0])] if web else []
        extra += ["--no-web-open-browser"] if web and self.arguments.no_browser else []
        command = mitmproxy_arguments(
            self.source.file, modes=modes, listen_host="127.0.0.1", port=ports[0], web=web, extra=extra
        )
        return GatewayProcess(command, ports, self.log, {**os.environ, **self.source.secrets}, web=web)

    def _changes(self, ports: Sequence[int]) -> Changes:
        secrets = tuple(self.source.secrets.values())
        urls = [f"http://127.0.0.1:{port}" for port in ports]
        if not self.arguments.intercept:
            listeners = list(zip(self.targets, urls, strict=True))
            return environment.reverse(self.source.ruleset, listeners, os.environ, secrets)
        bundle = self.folder / "ca-bundle.pem"
        bundle.write_bytes(environment.ca_bundle(ca_certificate(), os.environ))
        return environment.intercept(
            self.source.ruleset, urls[0], ca_certificate(), bundle, os.environ, secrets
        )


def ca_certificate() -> Path:
    """Return the CA certificate that an intercepting gateway signs with."""
    return Path.home() / ".mitmproxy" / "mitmproxy-ca-cert.pem"


def _run_client(session: _Session, gateway: GatewayProcess, changes: Changes, program: str) -> int:
    say(f"rules from {session.source.name}, log in {session.log}")
    if session.arguments.web and gateway.web_url:
        say(f"the traffic is at {gateway.web_url}")
    _warn_of_settings(changes, os.environ)
    status = run_client(program, session.arguments.client, changes.applied(os.environ))
    if gateway.has_ended:
        say(f"the gateway ended early; see {session.log}")
    return status


def _warn_of_settings(changes: Changes, environ: Mapping[str, str]) -> None:
    """Warn of Claude Code settings that bypass the gateway; exported variables cannot override them."""
    files = claude_settings.read_all(environ, Path.cwd())
    for path, name in claude_settings.overrides(files, changes.set, changes.unset):
        say(
            f'warning: "env" in {path} sets {name}, which beats what this command sets; '
            "remove it there, or the client bypasses the gateway"
        )
    for path, key in claude_settings.blocking(files):
        say(f'warning: "{key}" in {path} keeps gateway keys out')
