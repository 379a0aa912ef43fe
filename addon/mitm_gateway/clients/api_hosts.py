"""The APIs that clients use, and the hosts where they expect them."""

import fnmatch
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from ..rules.fields import CLIENT
from ..rules.presets.aws_region import aws_region
from ..rules.ruleset import RuleSet
from ..rules.schema import Rule

Environ = Mapping[str, str]
HTTPS: Final = 443


@dataclass(frozen=True, slots=True)
class VendorApi:
    """One API of one vendor: the host that clients ask, and a pattern for all hosts that serve it."""

    name: str
    host: Callable[[Environ], str]
    pattern: str


@dataclass(frozen=True, slots=True)
class CoveredHost:
    """A host that rules cover, for a reverse listener; `api` is None for a host of no known API."""

    host: str
    api: str | None = None


def vertex_host(environ: Environ) -> str:
    """Return the Vertex AI host of a location, as Google's SDKs build it."""
    location = environ.get("CLOUD_ML_REGION") or environ.get("GOOGLE_CLOUD_LOCATION") or "us-east5"
    if location == "global":
        return "aiplatform.googleapis.com"
    if location in ("us", "eu"):
        return f"aiplatform.{location}.rep.googleapis.com"
    return f"{location}-aiplatform.googleapis.com"


def _at(host: str) -> Callable[[Environ], str]:
    return lambda _environ: host


VENDOR_APIS: Final = tuple(
    VendorApi(name, host if callable(host) else _at(host), pattern)
    for name, host, pattern in (
        ("anthropic", "api.anthropic.com", "api.anthropic.com"),
        ("openai", "api.openai.com", "api.openai.com"),
        ("gemini", "generativelanguage.googleapis.com", "generativelanguage.googleapis.com"),
        (
            "bedrock",
            lambda environ: f"bedrock-runtime.{aws_region(environ)}.amazonaws.com",
            "bedrock-runtime.*.amazonaws.com",
        ),
        (
            "bedrock-mantle",
            lambda environ: f"bedrock-mantle.{aws_region(environ)}.api.aws",
            "bedrock-mantle.*.api.aws",
        ),
        ("vertex", vertex_host, "*aiplatform*.googleapis.com"),
        (
            "azure-foundry",
            lambda environ: (
                f"{environ.get('ANTHROPIC_FOUNDRY_RESOURCE') or 'resource'}.services.ai.azure.com"
            ),
            "*.services.ai.azure.com",
        ),
        (
            "claude-platform-aws",
            lambda environ: f"aws-external-anthropic.{aws_region(environ)}.api.aws",
            "aws-external-anthropic.*.api.aws",
        ),
        ("openrouter", "openrouter.ai", "openrouter.ai"),
    )
)


def covered_hosts(ruleset: RuleSet, environ: Environ) -> tuple[CoveredHost, ...]:
    """Return the hosts that the rules cover: those of known APIs first, then others in file order."""
    known = [
        CoveredHost(host, api.name) for api in VENDOR_APIS if (host := _ruled_host(api, ruleset, environ))
    ]
    hosts = {target.host for target in known}
    others = dict.fromkeys(host for host in _exact_hosts(ruleset) if host not in hosts)
    return (*known, *map(CoveredHost, others))


def _ruled_host(api: VendorApi, ruleset: RuleSet, environ: Environ) -> str | None:
    """Return the API's host if rules cover it, else the first host in the rules that serves the API."""
    if ruleset.knows_host(host := api.host(environ), HTTPS):
        return host
    named = (host for host in _exact_hosts(ruleset) if fnmatch.fnmatchcase(host, api.pattern))
    return next(named, None)


def _exact_hosts(ruleset: RuleSet) -> Iterator[str]:
    """Yield the hosts that rules name without a wildcard, at the port of https."""
    for rule in ruleset.rules:
        for pattern in rule.match.host:
            if pattern.is_exact and ruleset.knows_host(pattern.name, HTTPS):
                yield pattern.name


def sends_own_key(rules: tuple[Rule, ...]) -> bool:
    """Return True if any of these rules forwards the client's own key."""
    return any(
        rule.auth.credential == CLIENT or rule.auth.scheme == "keep" if rule.auth else rule.upstream is None
        for rule in rules
    )
