"""What a client's environment must say so that it uses the gateway: variables to set and to unset.

The launcher applies these changes, `env` prints them. They never hold a key of the gateway's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import certifi

from ..rules import presets
from ..rules.fields import CLIENT
from ..rules.patterns import HostPattern
from ..rules.ruleset import RuleSet
from ..rules.schema import Rule
from ..rules.variables import expanded
from ..wire.request import RequestHead

# Clients insist on a key; the gateway takes this one for none.
PLACEHOLDER = "placeholder"
ANTHROPIC, OPENAI = "api.anthropic.com", "api.openai.com"

# Each would lead Claude Code past the base URL, to a provider of its own.
_PROVIDERS = tuple(
    f"CLAUDE_CODE_USE_{name}" for name in ("BEDROCK", "MANTLE", "VERTEX", "FOUNDRY", "ANTHROPIC_AWS")
)
# Two keys at once give a warning in Claude Code, and one too many on the wire.
_KEYS = ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN", "AWS_BEARER_TOKEN_BEDROCK")
_OPENAI_KEYS = ("OPENAI_API_KEY",)
_FORM = ("ANTHROPIC_AUTH_MODE",)
# What each kind of client reads for further (Node, Bun) or for all (Python, curl) trusted authorities.
_EXTRA_CA = ("NODE_EXTRA_CA_CERTS",)
_WHOLE_CA = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
CA_VARIABLES = (*_EXTRA_CA, *_WHOLE_CA)
_LOOPBACK = ("127.0.0.1", "localhost")


@dataclass(frozen=True, slots=True)
class Target:
    """A host that clients mean, for a reverse listener, and the variables that lead them to it.

    In their values, `{url}` stands for the listener's address and `{key}` for some key.
    """

    host: str
    variables: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Changes:
    """Variables to set, and others to unset."""

    set: Mapping[str, str]
    unset: tuple[str, ...]

    def applied(self, environ: Mapping[str, str]) -> dict[str, str]:
        """The environment after the changes."""
        return {name: value for name, value in environ.items() if name not in self.unset} | dict(self.set)


def targets(ruleset: RuleSet, environ: Mapping[str, str]) -> tuple[Target, ...]:
    """The hosts that a launched client may be led to, for those that the rules are about."""
    found = []
    if _rules_for(ruleset, ANTHROPIC, "/v1/messages"):
        found.append(Target(ANTHROPIC, {"ANTHROPIC_BASE_URL": "{url}", "ANTHROPIC_AUTH_TOKEN": "{key}"}))
    if _rules_for(ruleset, OPENAI, "/v1/chat/completions") or _rules_for(ruleset, OPENAI, "/v1/responses"):
        found.append(Target(OPENAI, {"OPENAI_BASE_URL": "{url}/v1", "OPENAI_API_KEY": "{key}"}))
    for rule in ruleset.rules:
        client = presets.describe(rule.preset).get("client") if rule.preset else None
        if client:
            variables = {name: expanded(value, environ) for name, value in client["env"].items()}
            found.append(Target(expanded(client["host"], environ), variables))
    return tuple(found)


def _rules_for(ruleset: RuleSet, host: str, path: str) -> bool:
    head = RequestHead("POST", "https", host, 443, path, ((b"Host", host.encode()),))
    return ruleset.find(head) is not None


def sends_own_key(rules: tuple[Rule, ...]) -> bool:
    """Whether any of these rules lives on the client's own key."""
    return any(
        rule.auth.credential == CLIENT or rule.auth.scheme == "keep" if rule.auth else rule.upstream is None
        for rule in rules
    )


def reverse(
    ruleset: RuleSet,
    listeners: Sequence[tuple[Target, str]],
    environ: Mapping[str, str],
    secrets: Sequence[str] = (),
) -> Changes:
    """The changes for clients of reverse listeners: each target and the address that serves it."""
    put: dict[str, str] = {}
    gone = [*_FORM, *_PROVIDERS, *gateway_keys(ruleset, environ, secrets)]
    for target, url in listeners:
        own = sends_own_key(ruleset.on_host(target.host, 443))
        gone += [] if own else (_OPENAI_KEYS if target.host == OPENAI else _KEYS)
        for name, value in target.variables.items():
            if "{key}" not in value or not own:
                put[name] = value.format(url=url, key=PLACEHOLDER)
    if "ANTHROPIC_BASE_URL" not in put:
        gone.append("ANTHROPIC_BASE_URL")
    put |= _no_proxy(environ)
    return Changes(put, _without(gone, put))


def intercept(
    ruleset: RuleSet,
    proxy: str,
    ca: Path,
    bundle: Path,
    environ: Mapping[str, str],
    secrets: Sequence[str] = (),
) -> Changes:
    """Return the changes for clients of an intercepting listener.

    `ca` is the certificate to trust in addition; `bundle` contains it and everything that was trusted before.
    """
    put = {"HTTPS_PROXY": proxy, "https_proxy": proxy}
    put |= {name: str(bundle if environ.get(name) else ca) for name in _EXTRA_CA}
    put |= dict.fromkeys(_WHOLE_CA, str(bundle))
    gone = [*_FORM, *_PROVIDERS, "ANTHROPIC_BASE_URL", *gateway_keys(ruleset, environ, secrets)]
    for host, keys, name in (
        (ANTHROPIC, _KEYS, "ANTHROPIC_AUTH_TOKEN"),
        (OPENAI, _OPENAI_KEYS, "OPENAI_API_KEY"),
    ):
        rules = ruleset.on_host(host, 443)
        if rules and not sends_own_key(rules):
            gone += keys
            put[name] = PLACEHOLDER
    for name in ("NO_PROXY", "no_proxy"):
        if environ.get(name):
            kept = [entry for entry in no_proxy_entries(environ[name]) if not _excepts(entry, ruleset)]
            put[name] = ",".join(kept)
    return Changes(put, _without(gone, put))


def ca_bundle(ca: Path, environ: Mapping[str, str]) -> bytes:
    """Return every certificate that a client trusts already, and the CA of the proxy."""
    own = [Path(environ[name]) for name in CA_VARIABLES if environ.get(name)]
    files = [Path(certifi.where()), *(file for file in dict.fromkeys(own) if file.is_file()), ca]
    return b"\n".join(file.read_bytes() for file in files)


def gateway_keys(
    ruleset: RuleSet, environ: Mapping[str, str], secrets: Sequence[str] = ()
) -> tuple[str, ...]:
    """Variables that hold a key of the gateway's: those that credentials name, and others of the same value.

    `secrets` are further keys that are known by value.
    """
    named = {credential.env for credential in ruleset.credentials.values() if credential.env}
    values = {*secrets, *(environ[name] for name in named if environ.get(name))}
    return tuple(sorted(named | {name for name, value in environ.items() if value in values}))


def _no_proxy(environ: Mapping[str, str]) -> dict[str, str]:
    """Where the user has a proxy, the exception without which it would get what is meant for the gateway."""
    if not any(environ.get(name) for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")):
        return {}
    before = no_proxy_entries(environ.get("no_proxy") or environ.get("NO_PROXY") or "")
    value = ",".join(dict.fromkeys([*before, *_LOOPBACK]))
    return {"NO_PROXY": value, "no_proxy": value}


def no_proxy_entries(text: str) -> list[str]:
    """The entries of a `NO_PROXY` value."""
    return [entry for entry in text.replace(",", " ").split() if entry]


def _excepts(entry: str, ruleset: RuleSet) -> bool:
    return any(excepts(entry, pattern) for rule in ruleset.rules for pattern in rule.match.host)


def excepts(entry: str, pattern: HostPattern) -> bool:
    """Whether a `NO_PROXY` entry keeps requests to (some of) these hosts from a proxy."""
    name = entry.lower().lstrip("*").lstrip(".").partition(":")[0]
    host = pattern.text.lower().partition(":")[0]
    if entry == "*":
        return True
    return bool(name) and (host == name or host.endswith("." + name))


def _without(names: list[str], put: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(name for name in dict.fromkeys(names) if name not in put)
