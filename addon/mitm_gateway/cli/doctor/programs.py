"""The known client programs that are installed, and the command that sends one request with each."""

import shutil

from ...clients import catalogue
from ...clients.api_hosts import CoveredHost, covered_hosts
from ...clients.catalogue import Client
from ...clients.environment import reachable
from ...rules.ruleset import RuleSet
from .finding import Findings, Good, Subject


def check(ruleset: RuleSet, subject: Subject) -> Findings:
    """Name the command that sends one request with each installed client program."""
    hosts = covered_hosts(ruleset, subject.environ)
    for client in map(catalogue.load, catalogue.names()):
        if client.prove and any(_is_installed(program, subject) for program in client.programs):
            yield Good(f"{client.title} found: {_advice(client, hosts)}")


def _is_installed(program: str, subject: Subject) -> bool:
    return shutil.which(program, path=subject.environ.get("PATH", "")) is not None


def _advice(client: Client, hosts: tuple[CoveredHost, ...]) -> str:
    asked = tuple(host for host in hosts if host.api == client.proved_api)
    if reachable(client, asked):
        return f"`mitm-gateway run {client.prove}` sends one request"
    if asked or not client.apis:
        return f"`mitm-gateway run --intercept -- {client.prove}` sends one request"
    return "no rule covers the API that its test command calls"
