"""The gateway's options, read once per change."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional

from mitmproxy import exceptions
from mitmproxy.addonmanager import Loader
from mitmproxy.options import Options
from mitmproxy.utils.typecheck import check_option_type

from ..exchange.guard import Policy
from ..rules.fields import parse_size
from ..rules.problems import did_you_mean
from ..rules.read_file import FileError, read_regular_file
from ..wire.addresses import normal_host, parse_authority, parse_origin, parse_port
from ..wire.proxies import ENVIRONMENT, Proxies

MAX_CLIENT_KEYS_BYTES = 64 * 1024
_EXPECTED: dict[object, str] = {
    bool: "true or false",
    int: "a whole number",
    Optional[int]: "a whole number",  # noqa: UP045 - mitmproxy's own spelling
    Sequence[str]: "a list of texts",
}
_INTERCEPTED = ("all", "rules")


def add_options(loader: Loader) -> None:
    """Declare the gateway's options, with the same words on every load: mitmproxy would drop the user's values."""
    add = loader.add_option
    add("gateway_rules", str, "", "Rules file; by default rules.yaml beside the addon folder.")
    add("gateway_body_limit", str, "64MiB", "Largest request body that a rule may read, encoded and decoded.")
    add("gateway_origins", str, "", "Web origins whose pages may use a listener, separated by commas.")
    add("gateway_hosts", str, "", "More Host names of a reverse listener, separated by commas.")
    add("gateway_log", str, "", "File to which one JSON line per handled request is appended.")
    add(
        "gateway_otel",
        bool,
        False,
        "Send OpenTelemetry spans and metrics to the address that the OTEL_* variables set.",
    )
    add("gateway_metrics", str, "", "Address that serves metrics to Prometheus, such as 127.0.0.1:9464.")
    add("gateway_capture", str, "8MiB", "How much of each response is kept for display.")
    add(
        "gateway_view_limit",
        str,
        "1MiB",
        "How much text the LLM view shows; a single part gets at most a quarter of it.",
    )
    add("gateway_prices", str, "", "File with prices of models that override the list prices of the package.")
    add("gateway_reveal", bool, False, "Show and keep secrets unmasked.")
    add("gateway_clients", str, "", "File of client keys, one a line; every request then needs one.")
    add(
        "gateway_intercept",
        str,
        "all",
        "Hosts to decrypt: all, or only those with rules.",
        choices=_INTERCEPTED,
    )
    add("gateway_keep", int, 0, "How many handled flows mitmweb keeps; 0 keeps all.")
    add("gateway_fast", bool, True, "Quicker hook dispatch inside mitmproxy.")
    add(
        "gateway_proxy",
        str,
        ENVIRONMENT,
        "Proxy in front of upstreams: a URL, none, or env for HTTPS_PROXY, ALL_PROXY and NO_PROXY as curl reads them.",
    )


def take_out_faults(options: Options) -> list[str]:
    """Return the faults in values given before the options were declared, and discard those values.

    On a value of a wrong type mitmproxy gives up the script without a message, and serves without it; an unknown name
    it ignores.
    """
    faults = {name: _fault(options, name) for name in options.deferred if name.startswith("gateway_")}
    for name in filter(faults.get, faults):
        del options.deferred[name]
    return [fault for fault in faults.values() if fault]


def _fault(options: Options, name: str) -> str | None:
    if name not in options:
        known = [each for each in options._options if each.startswith("gateway_")]
        return f'unknown option "{name}"{did_you_mean(name, known)}'
    option, value = options._options[name], options.deferred[name]
    try:
        # A value of the command line is text; config.yaml has types.
        value = options._parse_setval(option, value.val) if hasattr(value, "val") else value
        check_option_type(name, value, option.typespec)
    except (exceptions.OptionsError, TypeError):
        return f"{name} is not {expected_value(option.typespec)}"
    return None


def expected_value(typespec: object) -> str:
    """Return in words what an option of this type accepts."""
    return _EXPECTED.get(typespec, "a text that is given once")


@dataclass(frozen=True, slots=True)
class Settings:
    """The options as values."""

    rules: Path | None = None
    body_limit: int = 64 << 20
    capture: int = 8 << 20
    view_limit: int = 1 << 20
    log: Path | None = None
    prices: Path | None = None
    otel: bool = False
    metrics: tuple[str, int] | None = None
    reveal: bool = False
    clients: Path | None = None
    only_rule_hosts: bool = False
    keep: int = 0
    fast: bool = True
    proxies: Proxies = field(default_factory=Proxies)
    policy: Policy = field(default_factory=Policy)

    @classmethod
    def read(cls, options: Options, default_rules: Path | None) -> Settings:
        """Return the settings that the options give. Raises OptionsError that names what is expected."""
        clients = _path(options.gateway_clients)
        return cls(
            rules=_path(options.gateway_rules) or default_rules,
            body_limit=_size("gateway_body_limit", options.gateway_body_limit),
            capture=_size("gateway_capture", options.gateway_capture),
            view_limit=_size("gateway_view_limit", options.gateway_view_limit),
            log=_path(options.gateway_log),
            prices=_path(options.gateway_prices),
            otel=options.gateway_otel,
            metrics=_address("gateway_metrics", options.gateway_metrics),
            reveal=options.gateway_reveal,
            clients=clients,
            only_rule_hosts=_choice("gateway_intercept", options.gateway_intercept, _INTERCEPTED) == "rules",
            keep=_count("gateway_keep", options.gateway_keep),
            fast=options.gateway_fast,
            proxies=_proxies(options.gateway_proxy),
            policy=Policy(
                origins=frozenset(map(_origin, _listed(options.gateway_origins))),
                hosts=frozenset(map(_host, _listed(options.gateway_hosts))),
                client_keys=read_client_keys(clients) if clients else None,
            ),
        )


def _proxies(text: str) -> Proxies:
    try:
        return Proxies.of(text, os.environ)
    except ValueError as fault:
        raise exceptions.OptionsError(str(fault)) from None


def _path(text: str) -> Path | None:
    return Path(text).expanduser() if text else None


def _size(option: str, text: str) -> int:
    try:
        return parse_size(text)
    except ValueError as fault:
        raise exceptions.OptionsError(f"{option} {fault}") from None


def _choice(option: str, value: str, choices: Sequence[str]) -> str:
    """Return the value; mitmproxy's own interfaces alone hold to the choices."""
    if value not in choices:
        raise exceptions.OptionsError(f"{option} is not one of {', '.join(choices)}")
    return value


def _count(option: str, value: int) -> int:
    if value < 0:
        raise exceptions.OptionsError(f"{option} is negative; expected a number, or 0 for all")
    return value


def _address(option: str, text: str) -> tuple[str, int] | None:
    """Return host and port to listen on; port 0 means any free one."""
    if not text:
        return None
    host, _, port = text.rpartition(":")
    try:
        return normal_host(host), 0 if port == "0" else parse_port(port)
    except ValueError:
        raise exceptions.OptionsError(
            f'{option} is not an address to listen on; expected one such as "127.0.0.1:9464"'
        ) from None


def _listed(text: str) -> list[str]:
    return [part.strip() for part in re.split(r"[,\s]+", text) if part.strip()]


def _origin(text: str) -> str:
    try:
        return parse_origin(text)
    except ValueError:
        raise exceptions.OptionsError(
            'gateway_origins contains an invalid origin; expected one such as "https://app.example.com"'
        ) from None


def _host(text: str) -> str:
    try:
        return parse_authority(text).host
    except ValueError:
        raise exceptions.OptionsError(
            'gateway_hosts contains an invalid host name; expected one such as "gateway.lan"'
        ) from None


def read_client_keys(path: Path) -> tuple[bytes, ...]:
    """Return the keys of a gateway_clients file, one a line, without `#` comments. Raises OptionsError."""
    try:
        content = read_regular_file(path, MAX_CLIENT_KEYS_BYTES)
    except FileError as fault:
        raise exceptions.OptionsError(f"gateway_clients: {path}: {fault}") from None
    lines = [line.strip() for line in content.splitlines()]
    keys = tuple(line for line in lines if line and not line.startswith(b"#"))
    if not keys:
        raise exceptions.OptionsError(f"gateway_clients: {path} contains no key; expected one key a line")
    return keys
