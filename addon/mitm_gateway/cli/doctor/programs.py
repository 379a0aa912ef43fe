"""Which of the known client programs are installed, and how to send one request with each."""

from __future__ import annotations

import shutil

from ...clients import catalogue
from ...clients.apis import Target, targets
from ...clients.catalogue import Client
from ...clients.environment import reachable
from ...rules.ruleset import RuleSet
from .finding import Findings, Good, Subject


def check(ruleset: RuleSet, subject: Subject) -> Findings:
    """Name the command that sends one request with each installed client program."""
    hosts = targets(ruleset, subject.environ)
    for client in map(catalogue.load, catalogue.names()):
        if client.prove and any(_is_installed(program, subject) for program in client.programs):
            yield Good(f"{client.title} is installed: {_advice(client, hosts)}")


def _is_installed(program: str, subject: Subject) -> bool:
    return shutil.which(program, path=subject.environ.get("PATH", "")) is not None


def _advice(client: Client, hosts: tuple[Target, ...]) -> str:
    if reachable(client, hosts):
        return f"`mitm-gateway run {client.prove}` sends one request"
    if not client.apis or any(host.api in client.apis for host in hosts):
        return f"`mitm-gateway run --intercept -- {client.prove}` sends one request"
    return "no rule is about a host that it asks"
