"""The environment that points a client at the gateway: variables to set and unset, arguments to insert.

`run` applies these changes, `env` prints them. They never contain a key of the gateway.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..rules.ruleset import RuleSet
from ..text.echoes import SHORTEST_PART, contains_encoded
from .api_hosts import HTTPS, CoveredHost, Environ, covered_hosts, sends_own_key
from .catalogue import ANY, SHELL, Client, Setup, load
from .network import no_proxy, proxied, proxy_variable

# `run` reads its rules from these variables; the client must not.
_ENVIRONMENT_FORM = ("ANTHROPIC_AUTH_MODE",)
_BASE_URL = "ANTHROPIC_BASE_URL"


@dataclass(frozen=True, slots=True)
class Changes:
    """Variables to set, others to unset, and arguments to insert after the program's name."""

    set: Mapping[str, str]
    unset: tuple[str, ...]
    arguments: tuple[str, ...] = ()
    # Variables that name a file with this text.
    files: Mapping[str, str] = field(default_factory=dict)

    def in_folder(self, folder: Path) -> Changes:
        """Write the files to a folder, and return the changes with variables that name them."""
        paths = {name: folder / f"{name.lower()}.json" for name in self.files}
        for name, path in paths.items():
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            path.write_text(self.files[name])
        named = {name: str(path) for name, path in paths.items()}
        return Changes({**self.set, **named}, self.unset, self.arguments)

    def applied(self, environ: Environ) -> dict[str, str]:
        """Return the environment after the changes."""
        return {name: value for name, value in environ.items() if name not in self.unset} | dict(self.set)


def reachable(client: Client, hosts: Iterable[CoveredHost]) -> tuple[CoveredHost, ...]:
    """Return the targets to which this client can be pointed by variables or arguments."""
    return tuple(
        target
        for target in hosts
        if (setup := client.apis.get(target.api or "")) and (setup.url or setup.arguments)
    )


def reverse(
    ruleset: RuleSet,
    client: Client,
    listeners: Sequence[tuple[CoveredHost, str]],
    environ: Environ,
    secrets: Sequence[str] = (),
) -> Changes:
    """Return the changes for a client of reverse listeners: each target with its listener's address."""
    put: dict[str, str] = {}
    arguments: list[str] = []
    files: dict[str, str] = {}
    switch = _switch(client, [target for target, _ in listeners], environ)
    for target, url in listeners:
        setup = client.apis[target.api or ""]
        put |= {name: value.replace("{url}", url) for name, value in setup.url.items()}
        arguments += [argument.replace("{url}", url) for argument in setup.arguments]
        if not switch or setup.switch == switch:  # settings for another API than the chosen one would win
            files |= {name: text for name, text in setup.files.items() if not environ.get(name)}
    put |= no_proxy(environ) if proxy_variable(environ) else {}
    changes = _changes(ruleset, client, [target for target, _ in listeners], environ, secrets, put)
    return replace(changes, arguments=tuple(arguments), files=files)


def variables_at(ruleset: RuleSet, environ: Environ, host: str, url: str) -> Mapping[str, str]:
    """Return the variables that point programs at one reverse listener; none for a host of no known API."""
    target = next((each for each in covered_hosts(ruleset, environ) if each.host == host), CoveredHost(host))
    for client in map(load, (SHELL, ANY)):
        if reachable(client, [target]):
            return reverse(ruleset, client, [(target, url)], {}).set
    return {}


def intercept(
    ruleset: RuleSet, client: Client, proxy: str, bundle: Path, environ: Environ, secrets: Sequence[str] = ()
) -> Changes:
    """Return the changes for a client of an intercepting listener.

    `bundle` contains the CA of the proxy and everything that the client trusted before.
    """
    hosts = [target for target in covered_hosts(ruleset, environ) if target.api in client.apis]
    # A base URL of the user would lead past the host that the rules cover.
    urls = [name for target in hosts for name in client.apis[target.api or ""].url]
    put = proxied(ruleset, proxy, bundle, environ)
    return _changes(ruleset, client, hosts, environ, secrets, put, urls)


def _changes(
    ruleset: RuleSet,
    client: Client,
    hosts: Sequence[CoveredHost],
    environ: Environ,
    secrets: Sequence[str],
    put: Mapping[str, str],
    unset: Sequence[str] = (),
) -> Changes:
    """Return these changes, and those that a client needs behind any listener of these hosts."""
    keys, gone = _keys(ruleset, client, hosts, environ)
    put = {**client.always, **put, **keys, **_switch(client, hosts, environ)}
    switches = [name for setup in client.apis.values() for name in setup.switch]
    gone = [*_ENVIRONMENT_FORM, *gone, *unset, _BASE_URL, *switches, *gateway_keys(ruleset, environ, secrets)]
    return Changes(put, tuple(name for name in dict.fromkeys(gone) if name not in put))


def _keys(
    ruleset: RuleSet, client: Client, hosts: Iterable[CoveredHost], environ: Environ
) -> tuple[dict[str, str], list[str]]:
    """Return the placeholders to set, and the keys to unset, for hosts where the gateway sends its key."""
    put: dict[str, str] = {}
    unset: list[str] = []
    for target in hosts:
        setup = client.apis[target.api or ""]
        if not sends_own_key(ruleset.on_host(target.host, HTTPS)):
            put |= setup.key
            put |= {} if _has_any(setup.fallback, environ) else setup.fallback
            unset += [*setup.unset, *setup.key]
    return put, unset


def _switch(client: Client, hosts: Iterable[CoveredHost], environ: Environ) -> dict[str, str]:
    """Return the switch of the one API that the client is to use.

    It is the user's choice if rules cover that API, else an API without a switch, else the first of them.
    """
    setups = [client.apis[target.api or ""] for target in hosts]
    chosen = next((setup for setup in setups if any(map(environ.get, setup.switch))), None)
    if chosen is None and any(not setup.switch for setup in setups):
        return {}
    return dict((chosen or next(iter(setups), Setup())).switch)


def _has_any(fallback: Mapping[str, str], environ: Environ) -> bool:
    """Return True if the user has credentials that make the placeholders unnecessary."""
    home = Path(environ.get("HOME") or Path.home())
    in_files = any((home / ".aws" / name).exists() for name in ("credentials", "config"))
    return any(environ.get(name) for name in (*fallback, "AWS_PROFILE")) or in_files


def gateway_keys(ruleset: RuleSet, environ: Environ, secrets: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the variables that contain a key of the gateway, under any name and inside any text.

    `secrets` are further keys that are known by value.
    """
    named = {credential.env for credential in ruleset.credentials.values() if credential.env}
    values = {*secrets, *(environ[name] for name in named if environ.get(name))}
    return tuple(sorted(named | {name for name, text in environ.items() if _contains(text, values)}))


def _contains(text: str, secrets: Collection[str]) -> bool:
    is_plain = any(text == secret or (len(secret) >= SHORTEST_PART and secret in text) for secret in secrets)
    return is_plain or contains_encoded(text, secrets)
