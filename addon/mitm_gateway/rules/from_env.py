"""The environment form of the rules: ANTHROPIC_AUTH_MODE, ANTHROPIC_BASE_URL and ANTHROPIC_API_KEY."""

import json
from collections.abc import Iterator, Mapping

from ..text.redact import Secret
from .desktop import API_HOST, SCHEMES, one_rule, url_fault
from .problems import Problem, RulesError, did_you_mean
from .ruleset import RuleSet
from .schema import Credential

MODE_VARIABLE = "ANTHROPIC_AUTH_MODE"
_URL_VARIABLE, _KEY_VARIABLE = "ANTHROPIC_BASE_URL", "ANTHROPIC_API_KEY"
# The gateway's own process gets the key in this variable.
GATEWAY_KEY_VARIABLE = "MITM_GATEWAY_KEY"


def from_environment(environ: Mapping[str, str]) -> RuleSet | None:
    """Return the rule of the environment form; None unless `ANTHROPIC_AUTH_MODE` is set.

    Raises RulesError if the variables cannot be used.
    """
    if not environ.get(MODE_VARIABLE):
        return None
    if problems := list(_problems(environ)):
        raise RulesError(Problem("environment", None, text) for text in problems)
    mode, url, key = environ[MODE_VARIABLE], environ[_URL_VARIABLE], environ[_KEY_VARIABLE]
    return one_rule("environment", url, mode, Credential.literal(Secret(key)))


def _problems(environ: Mapping[str, str]) -> Iterator[str]:
    mode = environ[MODE_VARIABLE]
    if mode not in SCHEMES:
        hint = did_you_mean(mode, SCHEMES)
        yield f"{MODE_VARIABLE} is not known; expected one of {', '.join(SCHEMES)}{hint}"
    for name in (_URL_VARIABLE, _KEY_VARIABLE):
        if not environ.get(name):
            yield f"{name} is not set; {MODE_VARIABLE} requires it"
    url = environ.get(_URL_VARIABLE)
    if url and (fault := url_fault(url)):
        yield f"{_URL_VARIABLE} {fault}"


def rules_file(environ: Mapping[str, str]) -> tuple[str, Mapping[str, str]]:
    """Return the environment form as the text of a rules file, and the variable from which it reads the key."""
    rule = {
        "name": "environment",
        "match": {"host": API_HOST, "path": "/v1/**"},
        "upstream": environ[_URL_VARIABLE].replace("$", "$$"),
        "auth": {"scheme": environ[MODE_VARIABLE], "credential": "gateway"},
        "respond": {"head": True},
    }
    text = json.dumps({"credentials": {"gateway": {"env": GATEWAY_KEY_VARIABLE}}, "rules": [rule]})
    return text, {GATEWAY_KEY_VARIABLE: environ[_KEY_VARIABLE]}
