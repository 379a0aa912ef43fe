"""The gateway's options, read once per change, and the options of mitmproxy that would undo its promises."""

from __future__ import annotations

import atexit
import contextlib
import os
import re
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mitmproxy import exceptions, version
from mitmproxy.addonmanager import Loader
from mitmproxy.addons.mapremote import parse_map_remote_spec
from mitmproxy.options import Options
from mitmproxy.proxy import mode_specs

from ..exchange.guard import Policy
from ..rules.patterns import HostPattern
from ..rules.ruleset import RuleSet
from ..rules.schema import Rule, parse_size
from ..wire.addresses import (
    DEFAULT_PORTS,
    Authority,
    Upstream,
    is_loopback,
    normal_host,
    parse_origin,
    parse_port,
)

_SAMPLE_PATHS = ("/v1/messages", "/")
MAX_CLIENT_KEYS_BYTES = 64 * 1024


def add_options(loader: Loader) -> None:
    """Declares the gateway's options; the same words on every load, or mitmproxy drops the user's values."""
    add = loader.add_option
    add("gateway_rules", str, "", "Rules file; left empty: rules.yaml beside the addon folder.")
    add("gateway_body_limit", str, "64MiB", "Largest request body that a rule may read, encoded and decoded.")
    add("gateway_origins", str, "", "Web origins whose pages may use a listener, separated by commas.")
    add("gateway_hosts", str, "", "Further Host names of a reverse listener, separated by commas.")
    add("gateway_log", str, "", "File that gets one JSON line per handled request.")
    add("gateway_otel", bool, False, "Send OpenTelemetry spans and metrics where the OTEL_* variables say.")
    add("gateway_metrics", str, "", "Address that serves metrics to Prometheus, such as 127.0.0.1:9464.")
    add("gateway_capture", str, "8MiB", "How much of each response is kept for display.")
    add("gateway_reveal", bool, False, "Show and keep secrets unmasked.")
    add("gateway_clients", str, "", "File of client keys, one a line; every request then needs one.")
    add(
        "gateway_intercept",
        str,
        "all",
        "Hosts to decrypt: all, or only those with rules.",
        choices=("all", "rules"),
    )
    add("gateway_keep", int, 0, "How many handled flows mitmweb keeps; 0 keeps all.")
    add("gateway_fast", bool, True, "Quicker hook dispatch inside mitmproxy.")


@dataclass(frozen=True, slots=True)
class Settings:
    """The options as values."""

    rules: Path | None = None
    body_limit: int = 64 << 20
    capture: int = 8 << 20
    log: Path | None = None
    otel: bool = False
    metrics: tuple[str, int] | None = None
    reveal: bool = False
    clients: Path | None = None
    only_rule_hosts: bool = False
    keep: int = 0
    fast: bool = True
    policy: Policy = field(default_factory=Policy)

    @classmethod
    def read(cls, options: Options, default_rules: Path | None) -> Settings:
        """The settings that the options give. Raises OptionsError that says what is expected."""
        clients = _path(options.gateway_clients)
        return cls(
            rules=_path(options.gateway_rules) or default_rules,
            body_limit=_size("gateway_body_limit", options.gateway_body_limit),
            capture=_size("gateway_capture", options.gateway_capture),
            log=_path(options.gateway_log),
            otel=options.gateway_otel,
            metrics=_address("gateway_metrics", options.gateway_metrics),
            reveal=options.gateway_reveal,
            clients=clients,
            only_rule_hosts=options.gateway_intercept == "rules",
            keep=options.gateway_keep,
            fast=options.gateway_fast,
            policy=Policy(
                origins=frozenset(map(_origin, _listed(options.gateway_origins))),
                hosts=frozenset(map(_host, _listed(options.gateway_hosts))),
                client_keys=read_client_keys(clients) if clients else None,
            ),
        )


def _path(text: str) -> Path | None:
    return Path(text).expanduser() if text else None


def _size(option: str, text: str) -> int:
    try:
        return parse_size(text)
    except ValueError as fault:
        raise exceptions.OptionsError(f"{option} {fault}") from None


def _address(option: str, text: str) -> tuple[str, int] | None:
    """Host and port to listen on; port 0 is any free one."""
    if not text:
        return None
    host, _, port = text.rpartition(":")
    try:
        return normal_host(host), 0 if port == "0" else parse_port(port)
    except ValueError:
        raise exceptions.OptionsError(
            f'{option} is no address to listen on; expected one such as "127.0.0.1:9464"'
        ) from None


def _listed(text: str) -> list[str]:
    return [part.strip() for part in re.split(r"[,\s]+", text) if part.strip()]


def _origin(text: str) -> str:
    try:
        return parse_origin(text)
    except ValueError:
        raise exceptions.OptionsError(
            'gateway_origins holds something that is no origin; expected one such as "https://app.example.com"'
        ) from None


def _host(text: str) -> str:
    try:
        return Authority.parse(text).host
    except ValueError:
        raise exceptions.OptionsError(
            'gateway_hosts holds something that is no host; expected a form such as "gateway.lan"'
        ) from None


def read_client_keys(path: Path) -> tuple[bytes, ...]:
    """The keys of a gateway_clients file, one a line, without `#` comments. Raises OptionsError."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            os.close(handle)
            raise exceptions.OptionsError(f"gateway_clients: {path} is not a regular file")
        with os.fdopen(handle, "rb") as file:
            content = file.read(MAX_CLIENT_KEYS_BYTES + 1)
    except OSError as fault:
        raise exceptions.OptionsError(f"gateway_clients: {path}: {fault.strerror}") from None
    lines = [line.strip() for line in content.splitlines()]
    keys = tuple(line for line in lines if line and not line.startswith(b"#"))
    if not keys or len(content) > MAX_CLIENT_KEYS_BYTES:
        raise exceptions.OptionsError(
            f"gateway_clients: {path} holds no key, or more than 64 KiB; expected one a line"
        )
    return keys


def broken_promises(options: Options, ruleset: RuleSet) -> Iterator[str]:
    """Why these options and these rules cannot go together, each with what to do."""
    secret = [rule for rule in ruleset.rules if _sends_secret(rule)]
    if secret and _get(options, "ssl_insecure", False):
        yield (
            "ssl_insecure would send credentials to unverified servers; "
            "for a private CA set ssl_verify_upstream_trusted_ca"
        )
    if secret and not _get(options, "validate_inbound_headers", True):
        yield "validate_inbound_headers=false lets requests be smuggled past the rules; leave it on"
    if not options.keep_host_header and any(spec.startswith("reverse:") for spec in options.mode):
        yield (
            "keep_host_header=false would hide the name that a client called this listener by, and let a web page "
            "in under a name of its own; leave it on, the gateway sets the Host that goes out"
        )
    reading = next((rule for rule in ruleset.rules if rule.reads_body), None)
    if reading and _get(options, "stream_large_bodies", None):
        yield (
            f'stream_large_bodies would skip the body edits of rule "{reading.name}"; '
            "leave it off, answers stream anyway"
        )
    places = [place for rule in ruleset.rules for place in _sample_places(rule)]
    yield from _hidden_hosts(options, places)
    yield from _moved_hosts(options, ruleset, places)
    yield from _plain_targets(options, ruleset)


def set_where_unset(options: Options, **values: Any) -> dict[str, Any]:
    """Set the options that exist and that the user did not set; return those that were set.

    mitmproxy's public `has_changed` compares with the default, so an explicit default looks unset there.
    """
    chosen = {name: value for name, value in values.items() if name in options and _is_unset(options, name)}
    if chosen:
        options.update(**chosen)
    return chosen


def _is_unset(options: Options, name: str) -> bool:
    try:
        from mitmproxy.optmanager import unset

        return options._options[name].value is unset
    except (ImportError, AttributeError, KeyError):
        return not options.has_changed(name)


def settle_before_exit() -> None:
    """Give mitmproxy's native threads time to come to rest before the interpreter ends.

    mitmproxy 11 has just started them when a faulty start ends the program; one that then calls into a
    finalizing interpreter crashes the process (7 of 40 starts on a busy machine), and the exit status is lost.
    """
    atexit.register(time.sleep, 0.1)


def _get(options: Options, name: str, default: Any) -> Any:
    """An option's value; the default where the addon that declares it is not loaded."""
    return getattr(options, name) if name in options else default


def known_holes(options: Options) -> Iterator[str]:
    """What this version of mitmproxy leaves open and the gateway cannot close, each with what to do."""
    if "web_port" in options and _version() < _WEB_LOGIN_FROM:
        yield (
            "this mitmweb has no login (CVE-2025-23217): any program on this machine can read its flows; "
            "mitmproxy 11.1.2 and newer have one"
        )


_WEB_LOGIN_FROM = (11, 1, 2)


def _version() -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.VERSION)[:3])


def _sends_secret(rule: Rule) -> bool:
    return bool(rule.credential_names) or (rule.auth is not None and rule.auth.credential == "client")


def _sample_places(rule: Rule) -> Iterator[str]:
    """`host:port` as mitmproxy matches it, with a plain word where a pattern has a star."""
    for pattern in rule.match.host:
        for port in (pattern.port,) if pattern.port else (443, 80):
            yield f"{_sample_host(pattern)}:{port}"


def _sample_host(pattern: HostPattern) -> str:
    labels = ["any" if label == "*" else label for label in pattern.labels]
    if pattern.below:
        labels = ["any", *(labels or ["example"])]
    return ".".join(labels)


def _hidden_hosts(options: Options, places: list[str]) -> Iterator[str]:
    for option in ("ignore_hosts", "tcp_hosts"):
        for pattern in _get(options, option, ()):
            for place in places:
                if re.search(pattern, place, re.IGNORECASE):
                    yield f"{option} would let {place} pass by its rules; leave that host out of it"
                    break
    allowed = _get(options, "allow_hosts", ())
    if allowed:
        for place in places:
            if place.endswith(":443") and not any(re.search(p, place, re.IGNORECASE) for p in allowed):
                yield f"allow_hosts would let {place} pass by its rules; add that host to it"


def _moved_hosts(options: Options, ruleset: RuleSet, places: list[str]) -> Iterator[str]:
    asked = [place.removesuffix(":443").removesuffix(":80") for place in places]
    urls = [
        f"{scheme}://{place}{path}" for place in asked for scheme in DEFAULT_PORTS for path in _SAMPLE_PATHS
    ]
    urls += [f"{rule.upstream}/v1/messages" for rule in ruleset.rules if isinstance(rule.upstream, Upstream)]
    for spec in _get(options, "map_remote", ()):
        with contextlib.suppress(ValueError):
            subject = parse_map_remote_spec(spec).subject
            hit = next((url for url in urls if re.search(subject.encode(), url.encode())), None)
            if hit:
                yield f"map_remote would move {hit} away from its rule's upstream; leave that host out of it"


def _plain_targets(options: Options, ruleset: RuleSet) -> Iterator[str]:
    for spec in _get(options, "mode", ()):
        with contextlib.suppress(ValueError):
            mode = mode_specs.ProxyMode.parse(spec)
            if not isinstance(mode, mode_specs.ReverseMode) or mode.scheme != "http":
                continue
            host, port = mode.address
            if is_loopback(normal_host(host)):
                continue
            for rule in ruleset.rules:
                covers = any(pattern.covers(normal_host(host), port) for pattern in rule.match.host)
                if covers and rule.upstream is None and _sends_secret(rule) and not rule.allow_http:
                    yield (
                        f'rule "{rule.name}" would send its credential over plain http to {mode.address[0]}; '
                        "use https, or say allow_http: true in the rule"
                    )
