"""`run`: a client and, for as long as it lives, a gateway that it uses without knowing."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import certifi

from ..clients import claude_settings, environment
from ..clients.environment import Changes, Target
from ..rules import desktop
from ..rules.load import load
from ..rules.ruleset import RuleSet
from .common import FAULT, Commands, add_rules, default_rules, wrong_usage
from .proxy import Proxy, ProxyError, free_ports
from .serve import proxy_arguments

# A shell says the same of a program that is not there, or is not one.
_NOT_FOUND, _NOT_EXECUTABLE = 127, 126
_KEY_VARIABLE = "MITM_GATEWAY_KEY"
_KEPT_LOGS = 20
_STARTS = 3


@dataclass(frozen=True, slots=True)
class Source:
    """Where a run's rules come from, and what the gateway's own environment needs besides."""

    ruleset: RuleSet
    file: Path
    said: str
    secrets: Mapping[str, str] = field(default_factory=dict)


def add(commands: Commands) -> None:
    """Adds the subcommand."""
    parser = commands.add_parser("run", help="run a client through a gateway of its own")
    parser.set_defaults(run=run)
    add_rules(parser)
    parser.add_argument("--web", action="store_true", help="show the traffic in mitmweb")
    parser.add_argument("--no-browser", action="store_true", help="with --web: do not open a browser")
    parser.add_argument(
        "--intercept", action="store_true", help="be an HTTPS proxy: for clients that ignore base URLs"
    )
    parser.add_argument("--log", type=Path, metavar="FILE", help="the gateway's log (default: a new file)")
    parser.add_argument(
        "client", nargs="+", metavar="-- CLIENT ARGUMENT", help="the client and its arguments"
    )


def run(arguments: argparse.Namespace) -> int:
    """Runs the client; its exit status."""
    environ = dict(os.environ)
    client = shutil.which(arguments.client[0])
    if client is None:
        print(f"mitm-gateway: {arguments.client[0]}: no such program", file=sys.stderr)
        return _NOT_FOUND
    with tempfile.TemporaryDirectory(prefix="mitm-gateway-") as folder:
        source = find_rules(arguments.rules, environ, Path(folder))
        targets = environment.targets(source.ruleset, environ)
        if not arguments.intercept and not targets:
            return wrong_usage(
                "no rule is about api.anthropic.com or api.openai.com, so there is no base URL to set; "
                "--intercept takes all hosts"
            )
        log = arguments.log or new_log(environ)
        try:
            with _serving(arguments, source, targets, log, Path(folder)) as (proxy, changes):
                _tell(source, proxy, log, web=arguments.web)
                _warn_of_settings(changes, environ)
                status = _wait_for_client(client, arguments.client, changes.applied(environ))
                if proxy.has_ended:
                    print(f"mitm-gateway: the gateway ended early; see {log}", file=sys.stderr)
                return status
        except ProxyError as fault:
            print(f"mitm-gateway: the gateway did not start:\n{fault}", file=sys.stderr)
            return FAULT


def find_rules(file: Path | None, environ: Mapping[str, str], folder: Path) -> Source:
    """The rules of a run: a file that is named, the environment form, Desktop's keys in settings.json, or
    the default file. Raises RulesError."""
    if file is not None:
        return Source(load(file, environ), file, str(file))
    if (ruleset := desktop.from_environment(environ)) is not None:
        written = folder / "rules.yaml"
        written.write_text(json.dumps(_environment_form(environ)))
        return Source(ruleset, written, "ANTHROPIC_AUTH_MODE", {_KEY_VARIABLE: environ["ANTHROPIC_API_KEY"]})
    if (settings := claude_settings.desktop_rules(environ)) is not None:
        return Source(load(settings, environ), settings, str(settings))
    return Source(load(default_rules(), environ), default_rules(), str(default_rules()))


def _environment_form(environ: Mapping[str, str]) -> dict[str, object]:
    """The environment form as a rules file without the key, which goes to the gateway's environment."""
    return {
        "credentials": {"gateway": {"env": _KEY_VARIABLE}},
        "rules": [
            {
                "name": "environment",
                "match": {"host": desktop.API_HOST, "path": "/v1/**"},
                "upstream": environ["ANTHROPIC_BASE_URL"].replace("$", "$$"),
                "auth": {"scheme": environ["ANTHROPIC_AUTH_MODE"], "credential": "gateway"},
                "respond": {"head": True},
            }
        ],
    }


def new_log(environ: Mapping[str, str]) -> Path:
    """A new log file among those of earlier runs, of which the oldest go."""
    base = environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    folder = Path(base) / "mitm-gateway"
    for old in sorted(folder.glob("run-*.log"), reverse=True)[_KEPT_LOGS - 1 :]:
        old.unlink(missing_ok=True)
    return folder / f"run-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log"


@contextmanager
def _serving(
    arguments: argparse.Namespace, source: Source, targets: Sequence[Target], log: Path, folder: Path
) -> Iterator[tuple[Proxy, Changes]]:
    """A gateway that serves, and what its clients must be told."""
    for attempt in range(1, _STARTS + 1):
        ports = free_ports((1 if arguments.intercept else len(targets)) + arguments.web)
        web_port, ports = (ports[-1], ports[:-1]) if arguments.web else (None, ports)
        proxy = _start(arguments, source, targets, log, ports, web_port)
        with proxy:
            try:
                proxy.wait_until_it_serves(_ca() if arguments.intercept else None)
            except ProxyError:
                if attempt < _STARTS and proxy.lost_a_port():
                    continue
                raise
            yield proxy, _changes(arguments, source, targets, ports, folder)
            return


def _start(
    arguments: argparse.Namespace,
    source: Source,
    targets: Sequence[Target],
    log: Path,
    ports: Sequence[int],
    web_port: int | None,
) -> Proxy:
    modes = (
        ["regular"]
        if arguments.intercept
        else [f"reverse:https://{target.host}@{port}" for target, port in zip(targets, ports, strict=True)]
    )
    extra = []
    if web_port is not None:
        extra = ["--web-port", str(web_port), *(["--no-web-open-browser"] if arguments.no_browser else [])]
    command = proxy_arguments(
        source.file, modes=modes, listen_host="127.0.0.1", port=ports[0], web=arguments.web, extra=extra
    )
    return Proxy(command, ports, log, {**os.environ, **source.secrets}, web=arguments.web)


def _changes(
    arguments: argparse.Namespace,
    source: Source,
    targets: Sequence[Target],
    ports: Sequence[int],
    folder: Path,
) -> Changes:
    if not arguments.intercept:
        urls = [(target, f"http://127.0.0.1:{port}") for target, port in zip(targets, ports, strict=True)]
        return environment.reverse(source.ruleset, urls, os.environ, tuple(source.secrets.values()))
    ca = _ca()
    bundle = folder / "ca-bundle.pem"
    bundle.write_bytes(ca_bundle(ca, os.environ))
    return environment.intercept(
        source.ruleset, f"http://127.0.0.1:{ports[0]}", ca, bundle, os.environ, tuple(source.secrets.values())
    )


def _ca() -> Path:
    return Path.home() / ".mitmproxy" / "mitmproxy-ca-cert.pem"


def ca_bundle(ca: Path, environ: Mapping[str, str]) -> bytes:
    """Everything that a client trusts already, and the CA of the proxy."""
    own = [Path(environ[name]) for name in environment.CA_VARIABLES if environ.get(name)]
    files = [Path(certifi.where()), *(file for file in dict.fromkeys(own) if file.is_file()), ca]
    return b"\n".join(file.read_bytes() for file in files)


def _tell(source: Source, proxy: Proxy, log: Path, *, web: bool) -> None:
    print(f"mitm-gateway: rules from {source.said}, log in {log}", file=sys.stderr)
    if web and proxy.web_url:
        print(f"mitm-gateway: the traffic is at {proxy.web_url}", file=sys.stderr)


def _warn_of_settings(changes: Changes, environ: Mapping[str, str]) -> None:
    """Says what in Claude Code's settings leads past the gateway; exported variables cannot win there."""
    files = claude_settings.read_all(environ, Path.cwd())
    for path, name in claude_settings.overrides(files, changes.set, changes.unset):
        print(
            f'mitm-gateway: warning: "env" in {path} sets {name}, which beats what this command sets; '
            "take it out there, or the client goes its own way",
            file=sys.stderr,
        )
    for path, key in claude_settings.blocking(files):
        print(f'mitm-gateway: warning: "{key}" in {path} keeps gateway keys out', file=sys.stderr)


def _wait_for_client(client: str, argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Runs the client with our terminal, signals and input; its exit status as a shell would say it."""
    try:
        process = subprocess.Popen(argv, executable=client, env=environ)
    except OSError as fault:
        print(f"mitm-gateway: {argv[0]}: {fault.strerror}", file=sys.stderr)
        return _NOT_EXECUTABLE
    with _passing_signals_to(process):
        status = process.wait()
    return 128 - status if status < 0 else status


@contextmanager
def _passing_signals_to(process: subprocess.Popen[bytes]) -> Iterator[None]:
    def pass_on(number: int, frame: object) -> None:
        process.send_signal(number)

    def leave(number: int, frame: object) -> None:
        """The terminal has sent it to the client already."""

    # Handlers and not SIG_IGN, which the client would inherit.
    of_terminal = leave if os.isatty(0) else pass_on
    handlers: dict[signal.Signals, Callable[[int, object], None]] = {
        signal.SIGTERM: pass_on,
        signal.SIGHUP: pass_on,
        signal.SIGUSR1: pass_on,
        signal.SIGUSR2: pass_on,
        signal.SIGINT: of_terminal,
        signal.SIGQUIT: of_terminal,
    }
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
