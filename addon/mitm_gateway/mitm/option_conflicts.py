"""The options of mitmproxy that would undo a promise of the gateway, and the holes that a version leaves open."""

import contextlib
import re
from collections.abc import Iterator
from typing import Any

from mitmproxy import version
from mitmproxy.addons.mapremote import parse_map_remote_spec
from mitmproxy.options import Options
from mitmproxy.proxy import mode_specs

from ..clients.network import fault_of_ca_file
from ..rules.patterns import HostPattern
from ..rules.ruleset import RuleSet
from ..rules.schema import Rule
from ..wire.addresses import DEFAULT_PORTS, Upstream, is_loopback, normal_host
from .judged_options import exposing_options

_SAMPLE_PATHS = ("/v1/messages", "/")


def broken_promises(options: Options, ruleset: RuleSet) -> Iterator[str]:
    """Yield why these options cannot be used with these rules, each with what to do."""
    secret = [rule for rule in ruleset.rules if _sends_secret(rule)]
    if secret and _get(options, "ssl_insecure", False):
        yield (
            "ssl_insecure would send credentials to unverified servers; "
            "for a private CA set ssl_verify_upstream_trusted_ca"
        )
    if secret and not _get(options, "validate_inbound_headers", True):
        yield "validate_inbound_headers=false lets requests be smuggled past the rules; leave it on"
    if secret:
        yield from exposing_options(options)
    if not options.keep_host_header and any(spec.startswith("reverse:") for spec in options.mode):
        yield (
            "keep_host_header=false would hide the name by which a client addressed this listener, and let web pages "
            "in by DNS rebinding; leave it on, the gateway sets the Host that is sent"
        )
    file = _get(options, "ssl_verify_upstream_trusted_ca", None)
    if file and (fault := fault_of_ca_file(file)):
        yield f"ssl_verify_upstream_trusted_ca: {file}: {fault}; expected a file of PEM certificates"
    reading = next((rule for rule in ruleset.rules if rule.reads_body), None)
    if reading and _get(options, "stream_large_bodies", None):
        yield (
            f'stream_large_bodies would skip the body edits of rule "{reading.name}"; '
            "leave it off, responses stream anyway"
        )
    places = [place for rule in ruleset.rules for place in _sample_places(rule)]
    yield from _hidden_hosts(options, places)
    yield from _moved_hosts(options, ruleset, places)
    yield from _plain_targets(options, ruleset)


def _get(options: Options, name: str, default: Any) -> Any:
    """Return an option's value; the default where the addon that declares it is not loaded."""
    return getattr(options, name) if name in options else default


def known_holes(options: Options) -> Iterator[str]:
    """Yield the holes of this mitmproxy version that the gateway cannot close, each with what to do."""
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
    """Yield `host:port` as mitmproxy matches it, with a plain word for each star of a pattern."""
    for pattern in rule.match.host:
        for port in (pattern.port,) if pattern.port else (443, 80):
            yield f"{_sample_host(pattern)}:{port}"


def _sample_host(pattern: HostPattern) -> str:
    labels = [label.replace("*", "any") for label in pattern.labels]
    if pattern.below:
        labels = ["any", *(labels or ["example"])]
    return ".".join(labels)


def _hidden_hosts(options: Options, places: list[str]) -> Iterator[str]:
    for option in ("ignore_hosts", "tcp_hosts", "udp_hosts"):
        for pattern in _get(options, option, ()):
            for place in places:
                if re.search(pattern, place, re.IGNORECASE):
                    yield f"{option} would let {place} bypass its rules; remove that host from it"
                    break
    allowed = _get(options, "allow_hosts", ())
    if allowed:
        for place in places:
            if place.endswith(":443") and not any(re.search(p, place, re.IGNORECASE) for p in allowed):
                yield f"allow_hosts would let {place} bypass its rules; add that host to it"


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
                yield f"map_remote would move {hit} away from its rule's upstream; remove that host from it"


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
                        "use https, or set allow_http: true in the rule"
                    )
