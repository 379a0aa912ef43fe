"""The APIs that clients use, and the hosts where they expect them."""

import fnmatch
import re
from collections.abc import Iterator, Mapping
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
    """One API of one vendor, at a host that may depend on the user's region or resource."""

    name: str
    form: str

    def host(self, environ: Environ) -> str:
        """Return the host that clients ask."""
        return self.form.format(**_places(environ)) if "{" in self.form else self.form

    @property
    def pattern(self) -> str:
        """A pattern for all hosts that serve the API."""
        return re.sub(r"\{\w+\}", "*", self.form)


def _places(environ: Environ) -> Mapping[str, str]:
    # Vertex AI's host, as Google's SDKs build it.
    location = environ.get("CLOUD_ML_REGION") or environ.get("GOOGLE_CLOUD_LOCATION") or "us-east5"
    return {
        "region": aws_region(environ),
        "resource": environ.get("ANTHROPIC_FOUNDRY_RESOURCE") or "resource",
        "one_region": "" if location in ("global", "us", "eu") else f"{location}-",
        "several_regions": f".{location}.rep" if location in ("us", "eu") else "",
    }


VENDOR_APIS: Final = (
    VendorApi("anthropic", "api.anthropic.com"),
    VendorApi("openai", "api.openai.com"),
    VendorApi("gemini", "generativelanguage.googleapis.com"),
    VendorApi("bedrock", "bedrock-runtime.{region}.amazonaws.com"),
    VendorApi("bedrock-mantle", "bedrock-mantle.{region}.api.aws"),
    VendorApi("vertex", "{one_region}aiplatform{several_regions}.googleapis.com"),
    VendorApi("azure-foundry", "{resource}.services.ai.azure.com"),
    VendorApi("claude-platform-aws", "aws-external-anthropic.{region}.api.aws"),
    VendorApi("openrouter", "openrouter.ai"),
)


@dataclass(frozen=True, slots=True)
class CoveredHost:
    """A host that rules cover, for a reverse listener; `api` is None for a host of no known API."""

    host: str
    api: str | None = None


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
