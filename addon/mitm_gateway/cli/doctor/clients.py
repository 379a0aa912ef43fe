"""Checks of client programs: Claude Code's environment and settings, and the commands that prove each program."""

import shutil

from ...clients import catalogue, claude_settings
from ...clients.api_hosts import CoveredHost, covered_hosts
from ...clients.catalogue import Client, base_url_variables
from ...clients.environment import reachable
from ...rules.ruleset import RuleSet
from .finding import Fault, Findings, Good, Subject

_PROXY = ("HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy")


def check_claude_code(subject: Subject) -> Findings:
    """Find keys and settings that keep Claude Code from using the gateway."""
    environ = subject.environ
    if environ.get("ANTHROPIC_API_KEY") and environ.get("ANTHROPIC_AUTH_TOKEN"):
        yield Fault(
            "ANTHROPIC_API_KEY and ANTHROPIC_AUTH_TOKEN are both set; Claude Code warns and sends both",
            "unset one of them; `mitm-gateway env` prints the line",
        )
    files = claude_settings.read_all(environ, subject.project)
    for file in files:
        for name in (*base_url_variables(), *_PROXY):
            if file.env.get(name) and file.env[name] != environ.get(name):
                yield Fault(
                    f'"env" in {file.path} sets {name}, which overrides the shell and `mitm-gateway run`',
                    f"remove {name} from {file.path}",
                )
    for path, key in claude_settings.blocking(files):
        yield Fault(
            f'"{key}" in {path} makes Claude Code ignore gateway keys',
            f"remove {key}, or ask the administrator who set it",
        )


def check_programs(ruleset: RuleSet, subject: Subject) -> Findings:
    """Name the command that sends one request with each installed client program."""
    hosts = covered_hosts(ruleset, subject.environ)
    for client in map(catalogue.load, catalogue.names()):
        path = subject.environ.get("PATH", "")
        if client.prove and any(shutil.which(program, path=path) for program in client.programs):
            yield Good(f"{client.title} found: {_advice(client, hosts)}")


def _advice(client: Client, hosts: tuple[CoveredHost, ...]) -> str:
    asked = tuple(host for host in hosts if host.api == client.proved_api)
    if reachable(client, asked):
        return f"`mitm-gateway run {client.prove}` sends one request"
    if asked or not client.apis:
        return f"`mitm-gateway run --intercept -- {client.prove}` sends one request"
    return "no rule covers the API that its test command calls"
