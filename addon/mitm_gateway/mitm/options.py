"""The gateway's options, read once per change."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional, TypeVar

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
T = TypeVar("T")


_OPTIONS: tuple[tuple[str, type, object, str], ...] = (
    ("gateway_rules", str, "", "Rules file; by default rules.yaml beside the addon folder."),
    ("gateway_body_limit", str, "64MiB", "Largest request body that a rule may read, encoded and decoded."),
    ("gateway_origins", str, "", "Web origins whose pages may use a listener, separated by commas."),
    ("gateway_hosts", str, "", "More Host names of a reverse listener, separated by commas."),
    ("gateway_log", str, "", "File to which one JSON line per handled request is appended."),
    ("gateway_otel", bool, False,
     "Send OpenTelemetry spans and metrics to the address that the OTEL_* variables set."),
    ("gateway_metrics", str, "", "Address that serves metrics to Prometheus, such as 127.0.0.1:9464."),
    ("gateway_capture", str, "8MiB", "How much of each response is kept for display."),
    ("gateway_view_limit", str, "1MiB",
     "How much text the LLM view shows; a single part gets at most a quarter of it."),
    ("gateway_prices", str, "", "File with prices of models that override the list prices of the package."),
    ("gateway_reveal", bool, False, "Show and keep secrets unmasked."),
    ("gateway_clients", str, "", "File of client keys, one a line; every request then needs one."),
    ("gateway_intercept", str, "all", "Hosts to decrypt: all, or only those with rules."),
    ("gateway_keep", int, 0, "How many handled flows mitmweb keeps; 0 keeps all."),
    ("gateway_fast", bool, True, "Make mitmproxy faster, with all of its features."),
    ("gateway_proxy", str, ENVIRONMENT,
     "Proxy in front of upstreams: a URL, none, or env for HTTPS_PROXY, ALL_PROXY and NO_PROXY as curl reads them."),
)  # fmt: skip
_INTERCEPTED = ("all", "rules")


def add_options(loader: Loader) -> list[str]:
    """Declare the gateway's options, and return their names.

    The words are the same on every load: mitmproxy would drop the user's values.
    """
    for name, kind, default, text in _OPTIONS:
        choices = _INTERCEPTED if name == "gateway_intercept" else None
        loader.add_option(name, kind, default, text, choices)
    return [name for name, *_ in _OPTIONS]


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
        return f'unknown option "{name}"{did_you_mean(name, (known for known, *_ in _OPTIONS))}'
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
        # mitmproxy's own interfaces alone hold to the choices.
        if options.gateway_intercept not in _INTERCEPTED:
            raise exceptions.OptionsError(f"gateway_intercept is not one of {', '.join(_INTERCEPTED)}")
        if options.gateway_keep < 0:
            raise exceptions.OptionsError("gateway_keep is negative; expected a number, or 0 for all")
        clients = _path(options.gateway_clients)
        origins, hosts = _listed(options.gateway_origins), _listed(options.gateway_hosts)
        return cls(
            rules=_path(options.gateway_rules) or default_rules,
            body_limit=_size(options, "gateway_body_limit"),
            capture=_size(options, "gateway_capture"),
            view_limit=_size(options, "gateway_view_limit"),
            log=_path(options.gateway_log),
            prices=_path(options.gateway_prices),
            otel=options.gateway_otel,
            metrics=_parsed(_address, options.gateway_metrics, _ADDRESS) if options.gateway_metrics else None,
            reveal=options.gateway_reveal,
            clients=clients,
            only_rule_hosts=options.gateway_intercept == "rules",
            keep=options.gateway_keep,
            fast=options.gateway_fast,
            proxies=_parsed(lambda text: Proxies.of(text, os.environ), options.gateway_proxy, "{}"),
            policy=Policy(
                origins=frozenset(_parsed(parse_origin, each, _ORIGIN) for each in origins),
                hosts=frozenset(_parsed(parse_authority, each, _HOST).host for each in hosts),
                client_keys=read_client_keys(clients) if clients else None,
            ),
        )


def _path(text: str) -> Path | None:
    return Path(text).expanduser() if text else None


def _listed(text: str) -> list[str]:
    return [part.strip() for part in re.split(r"[,\s]+", text) if part.strip()]


_ADDRESS = 'gateway_metrics is not an address to listen on; expected one such as "127.0.0.1:9464"'
_ORIGIN = 'gateway_origins contains an invalid origin; expected one such as "https://app.example.com"'
_HOST = 'gateway_hosts contains an invalid host name; expected one such as "gateway.lan"'


def _parsed(parse: Callable[[str], T], text: str, fault: str) -> T:
    """Return a parsed value. Raises OptionsError with this text; `{}` in it is the reason of the parser."""
    try:
        return parse(text)
    except ValueError as reason:
        raise exceptions.OptionsError(fault.format(reason)) from None


def _size(options: Options, name: str) -> int:
    return _parsed(parse_size, getattr(options, name), f"{name} {{}}")


def _address(text: str) -> tuple[str, int]:
    """Return host and port to listen on; port 0 means any free one."""
    host, _, port = text.rpartition(":")
    return normal_host(host), 0 if port == "0" else parse_port(port)


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
