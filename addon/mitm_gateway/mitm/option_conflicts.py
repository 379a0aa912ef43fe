"""The options of mitmproxy that would undo a promise of the gateway, and the holes that a version leaves open."""

import contextlib
import re
from collections.abc import Iterator
from typing import Any

from mitmproxy import version
from mitmproxy.addons.mapremote import parse_map_remote_spec
from mitmproxy.addons.modifyheaders import parse_modify_spec
from mitmproxy.options import Options
from mitmproxy.proxy import mode_specs

from ..clients.network import fault_of_ca_file
from ..rules.patterns import HostPattern
from ..rules.ruleset import RuleSet
from ..rules.schema import Rule
from ..text.redact import is_key_header
from ..wire.addresses import DEFAULT_PORTS, Upstream, is_loopback, normal_host

# Options that cannot be used with rules that send a secret, each with the reason and the alternative.
_EXPOSING = {
    "ssl_insecure": "would send credentials to unverified servers; for a private CA set ssl_verify_upstream_trusted_ca",
    "stickyauth": "would add the Authorization that a rule sends to later requests that no rule takes; leave it off",
    "stickycookie": "would add one client's cookies to the requests of others, after a rule has stripped them; "
    "leave it off",
    "proxyauth": "would store each client's password in its flows, and take the key in Authorization for one; "
    "use gateway_clients",
    "modify_body": "would change a body after its rule has edited, checked or signed it; use body in the rule",
    "store_streamed_bodies": "would keep responses without a limit and unmasked; gateway_capture keeps a copy",
    "keep_alt_svc_header": "would lead clients past the gateway; leave it off",
    "emudhra": "would sign with a CA key that is published with mitmproxy; leave it off",
    "emudhra_old": "would sign with a CA key that is published with mitmproxy; leave it off",
}
# Header fields that decide about framing, destination or the access of web pages, besides those that carry keys.
_DECIDING = frozenset(
    {"host", "connection", "content-length", "transfer-encoding", "content-encoding", "upgrade"}
)

# The rules are checked against these options again when one of them changes.
WATCHED = frozenset(
    {
        *_EXPOSING,
        "allow_hosts",
        "gateway_reveal",
        "ignore_hosts",
        "keep_host_header",
        "map_remote",
        "mode",
        "modify_headers",
        "proxy_debug",
        "stream_large_bodies",
        "tcp_hosts",
        "udp_hosts",
        "upstream_auth",
        "validate_inbound_headers",
    }
)
_SAMPLE_PATHS = ("/v1/messages", "/")


def broken_promises(options: Options, ruleset: RuleSet) -> Iterator[str]:
    """Yield the reasons why these options cannot be used with these rules, each with its remedy."""
    if any(map(_sends_secret, ruleset.rules)):
        yield from _exposing(options)
    if not options.keep_host_header and any(spec.startswith("reverse:") for spec in options.mode):
        yield (
            "keep_host_header=false would hide the name by which a client addressed this listener, and let web pages "
            "in by DNS rebinding; leave it on, the gateway sets the Host that is sent"
        )
    file = _get(options, "ssl_verify_upstream_trusted_ca")
    if file and (fault := fault_of_ca_file(file)):
        yield f"ssl_verify_upstream_trusted_ca: {file}: {fault}; expected a file of PEM certificates"
    reading = next((rule for rule in ruleset.rules if rule.reads_body), None)
    if reading and _get(options, "stream_large_bodies"):
        yield (
            f'stream_large_bodies would skip the body edits of rule "{reading.name}"; '
            "leave it off, responses stream anyway"
        )
    places = [place for rule in ruleset.rules for place in _sample_places(rule)]
    yield from _hidden_hosts(options, places)
    yield from _moved_hosts(options, ruleset, places)
    yield from _plain_targets(options, ruleset)


def _get(options: Options, name: str, default: Any = None) -> Any:
    """Return an option's value; the default where the addon that declares it is not loaded."""
    return getattr(options, name) if name in options else default


def _exposing(options: Options) -> Iterator[str]:
    """Yield the options that would expose or change what a rule with a secret sends."""
    for name, reason in _EXPOSING.items():
        if _get(options, name):
            yield f"{name} {reason}"
    if _get(options, "proxy_debug") and not _get(options, "gateway_reveal"):
        yield "proxy_debug would log the bytes of each connection, keys included; leave it off, or set gateway_reveal"
    if _get(options, "upstream_auth") and any(mode.startswith("reverse:") for mode in options.mode):
        yield "upstream_auth would replace the Authorization of a rule on a reverse listener; leave it off"
    if not _get(options, "validate_inbound_headers", True):
        yield "validate_inbound_headers=false lets requests be smuggled past the rules; leave it on"
    for name in _modified_headers(options):
        if name in _DECIDING or is_key_header(name) or name.startswith(("access-control-", "sec-websocket-")):
            yield f"modify_headers would change {name} after a rule has set or stripped it; use headers in the rule"


def _modified_headers(options: Options) -> Iterator[str]:
    for spec in _get(options, "modify_headers", ()):
        with contextlib.suppress(ValueError):  # mitmproxy reports the mistake
            yield parse_modify_spec(spec, False).subject.decode(errors="replace").strip().lower()


def known_holes(options: Options) -> Iterator[str]:
    """Yield the holes of this mitmproxy version that the gateway cannot close, each with its remedy."""
    if "web_port" in options and not has_web_login(version.VERSION):
        yield (
            "this mitmweb has no login (CVE-2025-23217): any program on this machine can read its flows; "
            "mitmproxy 11.1.2 and newer have one"
        )


def has_web_login(mitmproxy: str) -> bool:
    """Return whether the mitmweb of a version has a login; earlier ones serve the flows through the proxy as well."""
    return tuple(int(part) for part in re.findall(r"\d+", mitmproxy)[:3]) >= (11, 1, 2)


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
