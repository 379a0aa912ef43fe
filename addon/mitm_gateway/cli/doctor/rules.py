"""Checks of the rules file, its credentials and the destinations that rules name."""

import asyncio
import hashlib
import re
import shlex
from collections.abc import Sequence

from ...credentials.store import Credentials
from ...credentials.value import CredentialError, Value
from ...rules.problems import Problem, RulesError
from ...rules.ruleset import RuleSet
from ...rules.schema import Credential
from ...text.redact import Secret
from ...wire.addresses import Upstream
from ..common import rule_count
from ..rules_source import find_rules
from .finding import Fault, Finding, Findings, Good, Subject

_UNSET = re.compile(
    r'needs the environment variable "(?P<name>[^"]+)", which is not set|^(?P<form>[A-Z_]+) is not set; '
)
_HOW_TO_CREATE = "; write one with "


def read_rules(subject: Subject) -> tuple[RuleSet | None, list[Finding]]:
    """Return the rules; in case of mistakes None, and a finding for each."""
    try:
        source = find_rules(subject.rules, subject.environ)
    except RulesError as fault:
        return None, list(_mistakes(fault.problems))
    return source.ruleset, [Good(f"rules from {source.name}: {rule_count(source.ruleset)}")]


def _mistakes(problems: Sequence[Problem]) -> Findings:
    """Return a fault for each problem; all unset variables together are one, with one command that sets them."""
    unset = {
        str(problem): found["name"] or found["form"]
        for problem in problems
        if (found := _UNSET.search(problem.text))
    }
    for problem in problems:
        missing, separator, command = str(problem).partition(_HOW_TO_CREATE)
        if separator:
            yield Fault(missing, f"write one with {command}")
        elif str(problem) not in unset:
            place = "edit the file there; docs/rules.md has every key"
            yield Fault(
                missing, place if problem.file != "environment" else f"correct {problem.text.split()[0]}"
            )
    if unset:
        yield Fault("\n       ".join(unset), _export(*unset.values()))


def _export(*names: str) -> str:
    return f"export {' '.join(f'{name}=…' for name in dict.fromkeys(names))}"


def check_credentials(ruleset: RuleSet, subject: Subject) -> Findings:
    """Fetch every credential once, and look for unused ones."""
    warnings: list[str] = []

    async def fetch() -> list[Finding]:
        credentials = Credentials(ruleset.credentials, subject.environ, warn=warnings.append)
        found: list[Finding] = []
        for name, credential in ruleset.credentials.items():
            found += await _fetched(credentials, name, credential, ruleset)
        await credentials.close()
        return found

    yield from asyncio.run(fetch())
    for text in warnings:
        problem, separator, fix = text.partition("; run ")
        yield Fault(
            problem, f"run {fix}" if separator else "the helper printed this line; it names the cause"
        )
    used = {name for rule in ruleset.rules for name in rule.credential_names}
    for name in ruleset.credentials:
        if name not in used:
            yield Fault(f'credential "{name}" is used by no rule', "name it in a rule's auth, or remove it")


async def _fetched(
    credentials: Credentials, name: str, credential: Credential, ruleset: RuleSet
) -> list[Finding]:
    try:
        value = await credentials.get(name)
    except CredentialError as fault:
        return [Fault(str(fault), _fix(name, credential))]
    good = Good(f'credential "{name}" has a value, fingerprint {fingerprint(value.secret)}')
    return [good, *_other_apis(ruleset, name, value)]


def _fix(name: str, credential: Credential) -> str:
    if credential.env:
        return _export(credential.env)
    if credential.command:
        # An argument may be a secret, so only the program is named.
        program = shlex.quote(credential.command[0])
        return f"run {program} by hand with its arguments; its output names the cause"
    return f'see "{name}" in the rules'


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
    """Find rules that send a credential in clear text to a public host."""
    for rule in ruleset.rules:
        upstream = rule.upstream
        if rule.allow_http and isinstance(upstream, Upstream) and not upstream.is_private:
            yield Fault(
                f'rule "{rule.name}" sends its credential over plain http to {upstream.host}',
                "use https, and remove allow_http",
            )
