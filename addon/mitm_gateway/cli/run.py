"""`run`: start a client together with a gateway that it uses without further settings."""

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..clients import catalogue, claude_settings, environment
from ..clients.api_hosts import VENDOR_APIS, CoveredHost, covered_hosts
from ..clients.catalogue import Client
from ..clients.environment import Changes
from ..clients.network import CA_VARIABLES, UPSTREAM_VARIABLES, ca_bundle, unusable_ca_files
from .check import warn_of_missing
from .client_process import NOT_FOUND, run_client
from .common import FAULT, Subparsers, add_rules_option, ca_certificate, config_folder, say, wrong_usage
from .gateway_process import GatewayError, GatewayProcess, free_ports
from .mitmproxy_options import (
    add_proxy_options,
    assigned,
    listener_modes,
    mitmproxy_arguments,
    option_fault,
    settings_fault,
    settings_folder,
    upstream_trust,
)
from .rules_source import RulesSource, find_rules, rules_line
from .saving import SaveError, add_save_option, recording
from .session_report import LoggedRequests, SessionReport

_KEPT_LOGS, _KEPT_RECORDINGS = 20, 5
RECORDING = ".mitm"
_STARTS = 3
_EXAMPLES = """\
examples:
  mitm-gateway run claude
  mitm-gateway run codex exec "explain this repository"
  mitm-gateway run --intercept --web -- bash -c 'git pull && claude -p hi'

The client needs no further settings. With --intercept, the gateway decrypts the hosts that the rules name. It tunnels
every other host unchanged, with the host's own certificate and protocols (--all-hosts decrypts those too)."""


def add(commands: Subparsers) -> None:
    """Add the subcommand."""
    parser = commands.add_parser(
        "run",
        run=run,
        help="start a client together with a gateway for it",
        description="Start a client together with a gateway on a free port, and end both together.",
        epilog=_EXAMPLES,
    )
    add_rules_option(parser)
    add_proxy_options(parser)
    add_save_option(parser)
    parser.add_argument(
        "--client",
        dest="client_name",
        metavar="NAME",
        help="the client's name in docs/clients.md, if the program's name does not identify it",
    )
    parser.add_argument("--log", type=Path, metavar="FILE", help="the gateway's log (default: a new file)")
    parser.add_argument(
        "client", nargs=argparse.REMAINDER, metavar="CLIENT ...", help="the client and its arguments"
    )


def run(arguments: argparse.Namespace) -> int:
    """Run the client and return its exit status."""
    command = arguments.client[1:] if arguments.client[:1] == ["--"] else arguments.client
    if not command:
        return wrong_usage("the client is missing; expected one as in `mitm-gateway run claude`")
    if fault := option_fault(arguments.set) or settings_fault(arguments.set):
        return wrong_usage(fault)
    if (program := shutil.which(command[0])) is None:
        say(f"{command[0]}: no such program")
        return NOT_FOUND
    try:
        client, position = catalogue.of_command(command)
        if arguments.client_name is not None:
            client = catalogue.named(arguments.client_name)
    except ValueError as fault:
        return wrong_usage(str(fault))
    source = find_rules(arguments.rules, os.environ, demo=True)
    hosts = environment.reachable(client, covered_hosts(source.ruleset, os.environ))
    if not arguments.intercept and not hosts:
        return wrong_usage(_no_listener(client, command[0]))
    try:
        log = arguments.log or new_log(os.environ)
        log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as fault:
        say(f"{fault.filename}: {fault.strerror}; the gateway's log is written there, or to --log FILE")
        return FAULT
    try:
        with (
            tempfile.TemporaryDirectory(prefix="mitm-gateway-") as folder,
            recording(_recording(arguments, log), arguments.set) as save,
        ):
            session = _Session(arguments, source, client, hosts, log, Path(folder), save)
            with session.serving() as (gateway, changes):
                argv = [*command[:position], *changes.arguments, *command[position:]]
                return _run_client(session, gateway, changes, program, argv)
    except SaveError as fault:
        return wrong_usage(str(fault))
    except GatewayError as fault:
        say(f"the gateway did not start:\n{fault}")
        return FAULT


def _recording(arguments: argparse.Namespace, log: Path) -> Path | None:
    """Return the file for the traffic; mitmweb keeps nothing after its end, so its default is beside the log."""
    if arguments.save is not None or not arguments.web:
        return arguments.save  # type: ignore[no-any-return]
    if any(assignment.startswith("save_stream_file=") for assignment in arguments.set):
        return None
    return log.with_suffix(RECORDING)


def _no_listener(client: Client, program: str) -> str:
    if client.bypass and not client.takes_urls:
        return client.bypass
    asked = [api.host(os.environ) for api in VENDOR_APIS if api.name in client.apis]
    more = len(asked) - 1
    if not more:
        return (
            f'no rule covers {asked[0]}, which {program} calls; name it in "match.host", or use --intercept'
        )
    others = f"{asked[0]} or {more} {'other' if more == 1 else 'others'}"
    return (
        f'no rule covers a host that {program} calls: {others}; name one in "match.host", or use --intercept'
    )


def new_log(environ: Mapping[str, str]) -> Path:
    """Return the path of a new log file and delete the oldest ones of earlier runs."""
    base = environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    folder = Path(base) / "mitm-gateway"
    for suffix, kept in ((".log", _KEPT_LOGS), (RECORDING, _KEPT_RECORDINGS)):
        for old in sorted(folder.glob(f"run-*{suffix}"), reverse=True)[kept - 1 :]:
            old.unlink(missing_ok=True)
    return folder / f"run-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log"


@dataclass(frozen=True, slots=True)
class _Session:
    """A client with its rules, listeners and files, all known before the gateway starts."""

    arguments: argparse.Namespace
    source: RulesSource
    client: Client
    hosts: Sequence[CoveredHost]
    log: Path
    folder: Path
    save: Sequence[str]

    @property
    def _ca(self) -> Path:
        return ca_certificate(settings_folder(self.arguments.set))

    @property
    def requests(self) -> LoggedRequests:
        """The requests that the gateway logs, in the user's file if there is one."""
        file = assigned("gateway_log", self.arguments.set)
        return LoggedRequests(Path(file).expanduser() if file else self.folder / "requests.jsonl")

    @contextmanager
    def serving(self) -> Iterator[tuple[GatewayProcess, Changes]]:
        """Start the gateway; yield it with the changes to the client's environment. Raises GatewayError."""
        file, secrets = self.source.write(self.folder, os.environ)
        for attempt in range(1, _STARTS + 1):
            ports = free_ports(1 if self.arguments.intercept else len(self.hosts))
            with self._start(file, secrets, ports) as gateway:
                try:
                    gateway.wait_until_ready(self._ca if self.arguments.intercept else None)
                except GatewayError:
                    if attempt < _STARTS and gateway.lost_a_port():
                        continue
                    raise
                yield gateway, self._changes(ports, tuple(secrets.values()))
                return

    def _start(self, file: Path, secrets: Mapping[str, str], ports: Sequence[int]) -> GatewayProcess:
        web, modes = self.arguments.web, listener_modes(self.arguments, self.hosts, ports)
        extra = ["--web-port", str(free_ports(1)[0])] if web else []
        more = [f"gateway_log={self.requests.file}", *upstream_trust(self.folder, os.environ), *self.save]
        command = mitmproxy_arguments(
            self.arguments, file, modes=modes, port=ports[0], more=more, extra=extra
        )
        environ = {**os.environ, **secrets}
        return GatewayProcess(command, len(ports), self.log, environ, web=web, verbose=self.arguments.verbose)

    def _changes(self, ports: Sequence[int], secrets: Sequence[str]) -> Changes:
        ruleset, urls = self.source.ruleset, [f"http://127.0.0.1:{port}" for port in ports]
        if not self.arguments.intercept:
            listeners = list(zip(self.hosts, urls, strict=True))
            changes = environment.reverse(ruleset, self.client, listeners, os.environ, secrets)
            return changes.in_folder(config_folder())
        bundle = self.folder / "ca-bundle.pem"
        bundle.write_bytes(ca_bundle(self._ca, os.environ))
        return environment.intercept(ruleset, self.client, urls[0], bundle, os.environ, secrets)


def _run_client(
    session: _Session, gateway: GatewayProcess, changes: Changes, program: str, argv: Sequence[str]
) -> int:
    say(rules_line(session.source, session.log))
    if session.arguments.web and gateway.web_url:
        say(f"the traffic is at {gateway.web_url}")
    warn_of_missing(session.source)
    warnings = list(_warnings(session, changes))
    for warning in warnings:
        say(f"warning: {warning}")
    report = SessionReport(
        Path(argv[0]).name,
        session.requests,
        session.client,
        changes,
        intercepts=session.arguments.intercept,
        log=session.log,
    )
    with report.watching(gateway):
        status = run_client(program, argv, changes.applied(os.environ))
    if gateway.has_ended:
        say(f"the gateway ended early; see {session.log}")
    gateway.stop()
    report.print_summary(has_connected=gateway.has_connections())
    return status


def _warnings(session: _Session, changes: Changes) -> Iterator[str]:
    """Yield a warning for each setting that is likely to lead the client past the gateway, or to break it."""
    files = claude_settings.read_all(os.environ, Path.cwd())
    for path, name in claude_settings.overrides(files, changes.set, changes.unset):
        yield (
            f'"env" in {path} sets {name}, which overrides this command; '
            "remove it there, or the client bypasses the gateway"
        )
    for path, key in claude_settings.blocking(files):
        yield f'"{key}" in {path} makes Claude Code ignore gateway keys'
    if session.arguments.intercept:
        others = [name for name in CA_VARIABLES if name not in UPSTREAM_VARIABLES]
        for name, reason in unusable_ca_files(os.environ, others):
            yield f"{name}: {reason}; clients trust the gateway's bundle instead"
    if session.client.daemon:
        yield f"{session.client.title} leaves a process behind: {session.client.daemon}"
