"""`doctor`: looks at everything that usually goes wrong, and says how to put it right."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import datetime
import hashlib
import os
import re
import shlex
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from urllib.parse import urlsplit

from cryptography import x509

from ..clients import claude_settings, environment
from ..credentials.store import Credentials
from ..credentials.value import CredentialError
from ..rules import desktop
from ..rules.load import load
from ..rules.problems import RulesError, did_you_mean
from ..rules.ruleset import RuleSet
from ..text.redact import Secret
from ..wire.addresses import Upstream, is_loopback, normal_host
from .common import FAULT, OK, Subparsers, add_rules_option, default_rules

# mitmweb before it had no login, and served the flows through the proxy as well (CVE-2025-23217).
_MITMWEB_SAFE = (11, 1, 2)
_CA_WARNING = datetime.timedelta(days=14)
_TIMEOUT_S = 2.0
# A gateway refuses it always, by name, and sends nothing on.
_TRACE = b"TRACE / HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nConnection: close\r\n\r\n"
_PROXY_VARIABLES = ("https_proxy", "HTTPS_PROXY")
_BASE_URLS = ("ANTHROPIC_BASE_URL", "OPENAI_BASE_URL")


@dataclass(frozen=True, slots=True)
class Good:
    """Something that is as it should be."""

    text: str


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that is not, and what to do."""

    text: str
    fix: str


Finding = Good | Fault
Findings = Iterator[Finding]


@dataclass(frozen=True, slots=True)
class Patient:
    """What is looked at."""

    rules: Path
    environ: Mapping[str, str]
    port: int
    confdir: Path
    project: Path
    mitmproxy: str


def add(commands: Subparsers) -> None:
    """Adds the subcommand."""
    parser = commands.add_parser("doctor", help="find what is wrong with rules, keys, trust, port, options")
    parser.set_defaults(run=run)
    add_rules_option(parser)
    parser.add_argument("--port", type=int, default=8080, help="port that the gateway is to use")


def run(arguments: argparse.Namespace) -> int:
    """Prints every finding; exit status 1 where one is a fault."""
    patient = Patient(
        rules=arguments.rules or claude_settings.desktop_rules(os.environ) or default_rules(),
        environ=os.environ,
        port=arguments.port,
        confdir=Path("~/.mitmproxy").expanduser(),
        project=Path.cwd(),
        mitmproxy=version("mitmproxy"),
    )
    faults = 0
    for finding in findings(patient):
        match finding:
            case Good(text):
                print(f"ok     {text}")
            case Fault(text, fix):
                faults += 1
                print(f"FAULT  {text}\n       fix: {fix}")
    print(f"{faults} {'fault' if faults == 1 else 'faults'} found" if faults else "no faults found")
    return FAULT if faults else OK


def findings(patient: Patient) -> Findings:
    """Everything that there is to say."""
    ruleset, told = _rules(patient)
    yield from told
    if ruleset is not None:
        yield from _credentials(ruleset, patient)
        yield from _options(ruleset, patient)
        yield from _exceptions(ruleset, patient)
        yield from _exposure(ruleset)
    yield from _trust(patient)
    yield from _port(patient)
    yield from _version(patient)
    yield from _client(patient)


# ---- rules and credentials ----


def _rules(patient: Patient) -> tuple[RuleSet | None, list[Finding]]:
    path = patient.rules
    try:
        environment = desktop.from_environment(patient.environ)
        ruleset = environment or load(path, patient.environ)
    except RulesError as fault:
        missing = not path.exists()
        fix = "`mitm-gateway init PRESET` writes one" if missing else "edit the file there; README.md, Rules"
        return None, [Fault(str(problem), fix) for problem in fault.problems]
    count = len(ruleset.rules)
    return ruleset, [Good(f"{ruleset.file}: {count} {'rule' if count == 1 else 'rules'}")]


def _credentials(ruleset: RuleSet, patient: Patient) -> Findings:
    told: list[str] = []

    async def resolve() -> list[Finding]:
        credentials = Credentials(ruleset.credentials, patient.environ, warn=told.append)
        found = [
            await _resolved(credentials, name, credential.command)
            for name, credential in ruleset.credentials.items()
        ]
        await credentials.close()
        return found

    yield from asyncio.run(resolve())
    for text in told:
        yield Fault(text.partition(";")[0], "chmod 600 that file")
    used = {name for rule in ruleset.rules for name in rule.credential_names}
    for name in ruleset.credentials:
        if name not in used:
            yield Fault(f'credential "{name}" is used by no rule', "name it in a rule's auth, or take it out")


async def _resolved(credentials: Credentials, name: str, helper: tuple[str, ...] | None) -> Finding:
    try:
        value = await credentials.get(name)
    except CredentialError as fault:
        fix = f"run it by hand, it says why: {shlex.join(helper)}" if helper else f'see "{name}" in the rules'
        return Fault(str(fault), fix)
    return Good(f'credential "{name}" has a value, fingerprint {fingerprint(value.secret)}')


def fingerprint(secret: Secret) -> str:
    """Tells two secrets apart and gives nothing of them away."""
    return hashlib.sha256(secret.reveal().encode()).hexdigest()[:8]


# ---- mitmproxy's options ----


def _options(ruleset: RuleSet, patient: Patient) -> Findings:
    file = patient.confdir / "config.yaml"
    if not file.is_file():
        yield Good(f"{file}: none, so mitmproxy's options are the usual ones")
        return
    faults = list(asyncio.run(_option_faults(file, ruleset)))
    yield from faults
    if not faults:
        yield Good(f"{file}: no option breaks a promise")


async def _option_faults(file: Path, ruleset: RuleSet) -> list[Finding]:
    from mitmproxy import exceptions, options, optmanager
    from mitmproxy.addonmanager import Loader
    from mitmproxy.tools.dump import DumpMaster

    from ..mitm.options import Settings, add_options, broken_promises

    given = options.Options()
    master = DumpMaster(given, with_termlog=False, with_dumper=False)
    add_options(Loader(master))
    ours = [name for name in given.keys() if name.startswith("gateway_")]  # noqa: SIM118 - no plain mapping
    fix = f"change it in {file}"
    try:
        optmanager.load_paths(given, str(file))
        settings = Settings.read(given, None)
    except exceptions.OptionsError as fault:
        return [Fault(f"{file}: {fault}", fix)]
    found: list[Finding] = [Fault(text, fix) for text in broken_promises(given, ruleset)]
    found += [
        Fault(f"{file}: there is no option {name}{did_you_mean(name, ours)}", fix)
        for name in given.deferred
        if name.startswith("gateway")
    ]
    if settings.reveal:
        found.append(Fault("gateway_reveal shows and stores keys unmasked", f"take it out of {file}"))
    if not _is_loopback_name(given.listen_host) and given.listen_host and settings.clients is None:
        found.append(
            Fault(
                f"listen_host is {given.listen_host}, where only this machine is let in",
                "leave listen_host out, or name a file of client keys with gateway_clients",
            )
        )
    return found


def _is_loopback_name(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return host == "localhost" or is_loopback(normal_host(host))
    return False


# ---- the way to the gateway ----


def _exceptions(ruleset: RuleSet, patient: Patient) -> Findings:
    environ = patient.environ
    if any(environ.get(name) for name in _PROXY_VARIABLES):
        for variable in ("no_proxy", "NO_PROXY"):
            for entry in environment.no_proxy_entries(environ.get(variable, "")):
                hit = next(
                    (
                        pattern.text
                        for rule in ruleset.rules
                        for pattern in rule.match.host
                        if environment.excepts(entry, pattern)
                    ),
                    None,
                )
                if hit:
                    yield Fault(
                        f"{variable} names {entry}, so requests to {hit} go past the gateway",
                        f"take {entry} out of {variable}",
                    )
    for variable in _BASE_URLS:
        host = urlsplit(environ.get(variable, "")).hostname or ""
        if _is_loopback_name(host) and _goes_to_a_proxy(host, environ):
            yield Fault(
                f"HTTP_PROXY would get what {variable} sends to {host}",
                f"add {host} to NO_PROXY",
            )


def _goes_to_a_proxy(host: str, environ: Mapping[str, str]) -> bool:
    if not any(environ.get(name) for name in ("http_proxy", "HTTP_PROXY")):
        return False
    entries = environment.no_proxy_entries(environ.get("no_proxy") or environ.get("NO_PROXY") or "")
    return host not in entries and "*" not in entries


def _exposure(ruleset: RuleSet) -> Findings:
    for rule in ruleset.rules:
        upstream = rule.upstream
        if rule.allow_http and isinstance(upstream, Upstream) and not upstream.is_private:
            yield Fault(
                f'rule "{rule.name}" sends its credential over plain http to {upstream.host}',
                "use https, and take allow_http out",
            )


def _port(patient: Patient) -> Findings:
    said = _asked(patient.port)
    if said is None:
        yield Good(f"port {patient.port} is free")
    elif b"mitm-gateway" in said:
        yield Good(f"port {patient.port} is served by a gateway")
    else:
        yield Fault(
            f"port {patient.port} is taken by another program",
            "end that program, or give the gateway another --port",
        )


def _asked(port: int) -> bytes | None:
    """What listens on a port says to TRACE, which a gateway always refuses; None where nothing listens."""
    try:
        with socket.create_connection(("127.0.0.1", port), _TIMEOUT_S) as connection:
            connection.settimeout(_TIMEOUT_S)
            with contextlib.suppress(OSError):
                connection.sendall(_TRACE % port)
                return b"".join(iter(lambda: connection.recv(4096), b""))
            return b""
    except OSError:
        return None


# ---- trust and versions ----


def _trust(patient: Patient) -> Findings:
    ca, key = (patient.confdir / f"mitmproxy-ca{end}.pem" for end in ("-cert", ""))
    if key.is_file() and key.stat().st_mode & 0o077:
        yield Fault(f"{key}: others may read the key of the CA that clients trust", f"chmod 600 {key}")
    if ca.is_file() and (left := _ends_in(ca)) < _CA_WARNING:
        yield Fault(
            f"{ca}: the certificate {'ends soon' if left > datetime.timedelta(0) else 'has ended'}",
            f"remove {patient.confdir}/mitmproxy-ca*, start the gateway, trust the new one",
        )
    for name in environment.CA_VARIABLES:
        file = patient.environ.get(name)
        if file and not Path(file).is_file():
            yield Fault(f"{name} names {file}, which is not there", f"correct or unset {name}")
    if not any(patient.environ.get(name) for name in _PROXY_VARIABLES):
        yield Good("no HTTPS_PROXY is set here, so clients need not trust the proxy's CA")
        return
    yield from _client_trust(patient, ca)


def _client_trust(patient: Patient, ca: Path) -> Findings:
    if not ca.is_file():
        yield Fault(f"HTTPS_PROXY is set, and {ca} is not there", "start the gateway once; it makes its CA")
        return
    own = _body(ca.read_text())
    for name in ("NODE_EXTRA_CA_CERTS", "SSL_CERT_FILE"):
        file = Path(patient.environ.get(name) or "/nowhere")
        if file.is_file() and own in _body(file.read_text(errors="replace")):
            yield Good(f"{name} holds the proxy's CA")
        else:
            clients = "Node, Bun and Claude Code" if name.startswith("NODE") else "Python and curl"
            yield Fault(f"{clients} do not trust the proxy's CA", 'eval "$(mitm-gateway env --intercept)"')


def _body(pem: str) -> str:
    return re.sub(r"\s", "", pem).replace("-----ENDCERTIFICATE-----", "")


def _ends_in(ca: Path) -> datetime.timedelta:
    try:
        certificate = x509.load_pem_x509_certificate(ca.read_bytes())
    except ValueError:
        return datetime.timedelta(0)
    return certificate.not_valid_after_utc - datetime.datetime.now(datetime.UTC)


def _version(patient: Patient) -> Findings:
    numbers = tuple(int(part) for part in re.findall(r"\d+", patient.mitmproxy)[:3])
    if numbers < _MITMWEB_SAFE:
        yield Fault(
            f"mitmproxy {patient.mitmproxy}: mitmweb shows its flows to every program on this machine "
            "(CVE-2025-23217)",
            "use mitmdump instead of mitmweb; or Python 3.12 and `pip install -U mitmproxy`",
        )
    else:
        yield Good(f"mitmproxy {patient.mitmproxy}")


# ---- the client ----


def _client(patient: Patient) -> Findings:
    environ = patient.environ
    if environ.get("ANTHROPIC_API_KEY") and environ.get("ANTHROPIC_AUTH_TOKEN"):
        yield Fault(
            "ANTHROPIC_API_KEY and ANTHROPIC_AUTH_TOKEN are both set; Claude Code warns and sends both",
            "unset one of them; `mitm-gateway env` prints the line",
        )
    files = claude_settings.read_all(environ, patient.project)
    leading = (*_BASE_URLS, "HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy")
    for file in files:
        for name in leading:
            if file.env.get(name) and file.env[name] != environ.get(name):
                yield Fault(
                    f'"env" in {file.path} sets {name}, which beats the shell and `mitm-gateway run`',
                    f"take {name} out of {file.path}",
                )
    for path, key in claude_settings.blocking(files):
        yield Fault(f'"{key}" in {path} keeps gateway keys out', f"take {key} out, or ask who manages it")
