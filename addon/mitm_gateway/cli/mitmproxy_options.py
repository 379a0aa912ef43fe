"""The options and arguments for mitmproxy that `run` and `serve` share."""

from __future__ import annotations

import argparse
import errno
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

from ..clients.api_hosts import CoveredHost
from ..clients.network import UPSTREAM_VARIABLES, unusable_ca_files, upstream_authorities
from ..rules.problems import did_you_mean
from .common import say, script_path

if TYPE_CHECKING:
    from mitmproxy.options import Options

# Unless its column is named, mitmweb hides the comment, in which the gateway describes its edits.
WEB_COLUMNS = ("tls", "icon", "path", "method", "status", "comment", "size", "time")


def add_proxy_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that decide how the gateway runs."""
    parser.add_argument("--web", action="store_true", help="show the traffic in mitmweb")
    parser.add_argument("--no-browser", action="store_true", help="with --web: do not open a browser")
    parser.add_argument(
        "--intercept", action="store_true", help="run as an HTTPS proxy, for clients that ignore base URLs"
    )
    parser.add_argument(
        "--all-hosts",
        action="store_true",
        help="with --intercept: decrypt and show all hosts, not only those that the rules name",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="option of the gateway or of mitmproxy, such as gateway_log=FILE; may be repeated",
    )
    parser.add_argument("--verbose", action="store_true", help="log connections as mitmproxy does")


# The command line of mitmproxy sets these, which overrides `--set`.
_SETTLED = {
    "gateway_rules": "--rules FILE",
    "listen_port": "`mitm-gateway serve --port PORT`",
    "listen_host": "`mitm-gateway serve --listen-host ADDRESS`",
    "mode": '--intercept, `mitm-gateway serve --host HOST`, or `mitmdump -s "$(mitm-gateway script)" --mode MODE`',
}


def option_fault(assignments: Sequence[str]) -> str | None:
    """Return the fault of the `--set` options; mitmproxy would ignore it, or not start and give no reason."""
    if not assignments:
        return None
    from mitmproxy import exceptions, options

    declared = options.Options()
    known = declare_gateway_options(declared)
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not name:
            return f'--set "{assignment}" has no name; expected NAME=VALUE'
        if not equals:
            return f'--set "{name}" has no value; expected NAME=VALUE'
        if name in _SETTLED:
            return f"--set {name}: expected {_SETTLED[name]} instead"
        if name.startswith("gateway") and name not in known:
            hint = did_you_mean(name, known) or f"; expected one of {', '.join(known)}"
            return f'unknown option "{name}"{hint}'
        try:
            declared.set(assignment, defer=True)
        except exceptions.OptionsError as fault:
            return f'--set "{name}": {fault}'
        if name == "server_replay" and value and (reason := _recording_fault(Path(value).expanduser())):
            return f"--set {name}: {reason}"
    return None


def assigned(option: str, assignments: Sequence[str]) -> str | None:
    """Return the value that `--set` gives to an option of mitmproxy; the last one counts."""
    values = [value for name, _, value in (each.partition("=") for each in assignments) if name == option]
    return values[-1] if values else None


def settings_folder(assignments: Sequence[str]) -> Path:
    """Return mitmproxy's folder for its configuration and its certificate authority."""
    folder = assigned("confdir", assignments)
    return Path("~/.mitmproxy" if folder is None else folder).expanduser()


def settings_fault(assignments: Sequence[str]) -> str | None:
    """Return why mitmproxy would end with a traceback because of its folder."""
    folder = settings_folder(assignments)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        is_usable = (folder / "mitmproxy-ca.pem").exists() or os.access(folder, os.W_OK)
        reason = None if is_usable else os.strerror(errno.EACCES)
    except OSError as fault:
        reason = fault.strerror or str(fault)
    if reason is not None:
        return f"{folder}: {reason}; mitmproxy keeps its certificates there, or in --set confdir=FOLDER"
    return config_fault(folder / "config.yaml")


_MISTYPED = re.compile(r"for (\w+), but got")


def config_fault(file: Path) -> str | None:
    """Return the fault of mitmproxy's configuration, for which mitmproxy would print a traceback."""
    if not file.is_file():
        return None
    from mitmproxy import exceptions, options, optmanager

    from ..mitm.options import expected_value

    declared = options.Options()
    try:
        optmanager.load_paths(declared, str(file))
    except exceptions.OptionsError as fault:
        return str(fault)
    except (TypeError, AttributeError) as fault:
        if not (found := _MISTYPED.search(str(fault))):
            return f"{file}: expected one option a line, as NAME: VALUE"
        name, lines = found[1], file.read_text("utf-8", "replace").splitlines()
        number = next((at for at, line in enumerate(lines, 1) if line.startswith(f"{name}:")), 1)
        return f"{file}:{number}: {name} is not {expected_value(declared._options[name].typespec)}"
    return None


def _recording_fault(path: Path) -> str | None:
    """Return why the recording of `server_replay` cannot be read; mitmproxy's message does not name the file."""
    from ..mitm.recording_file import RecordingError, RecordingReader

    try:
        next(iter(RecordingReader(path)), None)
    except RecordingError as fault:
        return str(fault)
    return None


def declare_gateway_options(declared: Options) -> list[str]:
    """Declare the options of the gateway, and return their names."""
    from mitmproxy.addonmanager import Loader

    from ..mitm.options import add_options

    return add_options(Loader(SimpleNamespace(options=declared)))


def upstream_trust(folder: Path, environ: Mapping[str, str]) -> list[str]:
    """Return the option that makes the gateway trust the authorities that the user's variables name."""
    for name, fault in unusable_ca_files(environ, UPSTREAM_VARIABLES):
        say(f"warning: {name}: {fault}; upstreams are verified without it")
    certificates = upstream_authorities(environ)
    if certificates is None:
        return []
    file = folder / "upstream-ca.pem"
    file.write_bytes(certificates)
    return [f"ssl_verify_upstream_trusted_ca={file}"]


def listener_modes(
    arguments: argparse.Namespace, hosts: Sequence[CoveredHost], ports: Iterable[int]
) -> list[str]:
    """Return mitmproxy's modes: an HTTPS proxy, or one listener per host on these ports."""
    if arguments.intercept:
        return ["regular"]
    return [f"reverse:https://{target.host}@{port}" for target, port in zip(hosts, ports, strict=False)]


def mitmproxy_arguments(
    arguments: argparse.Namespace,
    rules: Path,
    *,
    modes: Sequence[str],
    port: int,
    listen_host: str = "127.0.0.1",
    more: Sequence[str],
    extra: Sequence[str],
) -> list[str]:
    """Return the arguments for mitmdump or mitmweb; `more` are options that a `--set` of the user overrides."""
    options = [f"gateway_rules={rules}", *(f"web_columns={name}" for name in WEB_COLUMNS if arguments.web)]
    if arguments.intercept and not arguments.all_hosts:
        options.append("gateway_intercept=rules")
    # mitmproxy refuses a second value for an option.
    named = {assignment.partition("=")[0] for assignment in arguments.set}
    options = [option for option in (*options, *more) if option.partition("=")[0] not in named]
    return [
        *("-s", str(script_path())),
        *(argument for mode in modes for argument in ("--mode", mode)),
        *("--listen-host", listen_host),
        *("--listen-port", str(port)),
        *(["--no-web-open-browser"] if arguments.web and arguments.no_browser else []),
        *(part for option in (*options, *arguments.set) for part in ("--set", option)),
        *extra,
    ]
