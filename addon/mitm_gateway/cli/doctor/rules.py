"""Checks of the rules file, its credentials and the destinations that rules name."""

from __future__ import annotations

import asyncio
import hashlib
import shlex

from ...credentials.store import Credentials
from ...credentials.value import CredentialError, Value
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
        found: list[Finding] = []
        for name, credential in ruleset.credentials.items():
            found += await _fetched(credentials, name, credential.command, ruleset)
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


async def _fetched(
    credentials: Credentials, name: str, helper: tuple[str, ...] | None, ruleset: RuleSet
) -> list[Finding]:
    try:
        value = await credentials.get(name)
    except CredentialError as fault:
        # An argument may be a secret, so only the program is named.
        program = f"run {shlex.quote(helper[0])} by hand with its arguments" if helper else ""
        fix = f"{program}; its output names the cause" if program else f'see "{name}" in the rules'
        return [Fault(str(fault), fix)]
    good = Good(f'credential "{name}" has a value, fingerprint {fingerprint(value.secret)}')
    return [good, *_other_apis(ruleset, name, value)]


def _other_apis(ruleset: RuleSet, name: str, value: Value) -> Findings:
    """Find rules that send a credential to another host than the one that its helper names."""
    for rule in ruleset.rules:
        upstream = rule.upstream
        is_used = rule.auth is not None and rule.auth.credential == name
        if is_used and isinstance(upstream, Upstream) and (api := value.other_api(upstream)):
            yield Fault(
                f'rule "{rule.name}" sends credential "{name}" to {upstream.authority}, '
                f"but the token is for {api.authority}",
                f"set upstream: {api}",
            )


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
