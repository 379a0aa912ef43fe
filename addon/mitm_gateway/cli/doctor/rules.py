"""Checks of the rules file, its credentials and the destinations that rules name."""

from __future__ import annotations

import asyncio
import hashlib
import shlex

from ...credentials.store import Credentials
from ...credentials.value import CredentialError
from ...rules.problems import RulesError
from ...rules.ruleset import RuleSet
from ...text.redact import Secret
from ...wire.addresses import Upstream
from ..common import rule_count
from ..rules_source import find_rules
from .finding import Fault, Finding, Findings, Good, Subject


def read(subject: Subject) -> tuple[RuleSet | None, list[Finding]]:
    """Read the rules; return None for the RuleSet, and the mistakes, if there are any."""
    try:
        source = find_rules(subject.rules, subject.environ)
    except RulesError as fault:
        missing = any("no such file" in str(problem) for problem in fault.problems)
        fix = (
            "`mitm-gateway init PRESET` writes one"
            if missing
            else "edit the file there; docs/rules.md has every key"
        )
        return None, [Fault(str(problem), fix) for problem in fault.problems]
    return source.ruleset, [Good(f"rules from {source.name}: {rule_count(source.ruleset)}")]


def check_credentials(ruleset: RuleSet, subject: Subject) -> Findings:
    """Fetch every credential once, and look for unused ones."""
    warnings: list[str] = []

    async def fetch() -> list[Finding]:
        credentials = Credentials(ruleset.credentials, subject.environ, warn=warnings.append)
        found = [
            await _fetched(credentials, name, credential.command)
            for name, credential in ruleset.credentials.items()
        ]
        await credentials.close()
        return found

    yield from asyncio.run(fetch())
    for text in warnings:
        problem, separator, fix = text.partition("; run ")
        yield Fault(
            problem, f"run {fix}" if separator else "the line is the helper's own and names its cause"
        )
    used = {name for rule in ruleset.rules for name in rule.credential_names}
    for name in ruleset.credentials:
        if name not in used:
            yield Fault(f'credential "{name}" is used by no rule', "name it in a rule's auth, or remove it")


async def _fetched(credentials: Credentials, name: str, helper: tuple[str, ...] | None) -> Finding:
    try:
        value = await credentials.get(name)
    except CredentialError as fault:
        # An argument may be a secret, so only the program is named.
        program = f"run {shlex.quote(helper[0])} by hand with its arguments" if helper else ""
        return Fault(
            str(fault), (program and f"{program}; its output names the cause") or f'see "{name}" in the rules'
        )
    return Good(f'credential "{name}" has a value, fingerprint {fingerprint(value.secret)}')


def fingerprint(secret: Secret) -> str:
    """Return eight digits that distinguish secrets and reveal nothing of them."""
    return hashlib.sha256(secret.reveal().encode()).hexdigest()[:8]


def check_exposure(ruleset: RuleSet) -> Findings:
    """Find rules that send a credential in clear to a public host."""
    for rule in ruleset.rules:
        upstream = rule.upstream
        if rule.allow_http and isinstance(upstream, Upstream) and not upstream.is_private:
            yield Fault(
                f'rule "{rule.name}" sends its credential over plain http to {upstream.host}',
                "use https, and remove allow_http",
            )
