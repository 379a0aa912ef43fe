"""Admission checks: who may use the gateway, and is the destination unambiguous?

All of them run before a rule is matched and before any secret is read: a request that contradicts itself is refused,
never treated as "unmatched".
"""

import hmac
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import islice

from ..llm.calls import has_two_readings
from ..wire.addresses import DEFAULT_PORTS, Authority, is_loopback, normal_host, parse_authority
from ..wire.refusal import Refusal
from ..wire.request import Arrival, RequestHead, lower_name
from .client_keys import PROXY_KEY, keys_in, without_gateway_keys

# The default limit of nginx and Apache for a request line; it bounds the time that a glob takes.
MAX_PATH_CHARACTERS = 8192
# Heads of coding agents have a few KiB; the bound keeps unfinished ones from filling the memory.
MAX_HEAD_BYTES = 128 << 10
# Programs send some twenty header fields; reading thirty thousand takes a tenth of a second.
MAX_HEAD_FIELDS = 1000
# Reasons that the Envoy filter gives as well.
TRACE_REFUSED = "TRACE is not forwarded: it would show the credential"
CROSS_SITE = "requests of web pages from other sites may not use this gateway"
# `same-site` is a page on another port or subdomain, whose requests the browser sends without asking.
OWN_SITES = ("none", "same-origin")
NOT_A_PROXY = (
    "this listener is not a proxy; name it in the client's base URL, or start the gateway with --intercept"
)
LONG_PATH = f"the path is longer than {MAX_PATH_CHARACTERS} characters"
ODD_PATH = "the path has dot or empty segments, as from a base URL with a slash at its end"
TWO_READINGS = (
    "servers may read another endpoint or model in this path; send it without encoded slashes, `;` and `#`"
)
# Clients send one key or two; each of them is compared with each client key.
MAX_KEYS = 100

HOST_IN_ORIGIN = re.compile(r"[^/\s*,]+")
_LINE_BREAK = re.compile(rb"[\r\n\0]")
# Characters that are not allowed in a token (RFC 9110, 5.6.2), which names and methods are.
_BLANK = re.compile(rb"[^!#$%&'*+.^_`|~0-9A-Za-z-]")
# Clients keep a fragment (RFC 9112, 3.2); some servers cut the target there, so that it matched as another path.
_NOT_IN_TARGET = re.compile(r"[\x00-\x20\x7f#]")


@dataclass(frozen=True, slots=True)
class Policy:
    """Web origins, further Host names of a reverse listener, and client keys that the user allows."""

    origins: frozenset[str] = frozenset()
    hosts: frozenset[str] = frozenset()
    client_keys: tuple[bytes, ...] | None = field(default=None, repr=False)

    def knows_key(self, value: str) -> bool:
        """Report whether a value is a client key, in time that depends neither on which nor on how many bytes agree."""
        candidate = value.encode("utf-8", "surrogateescape")
        # All keys are compared, even after one is equal.
        return sum(hmac.compare_digest(candidate, key) for key in self.client_keys or ()) > 0


def check_peer(is_this_machine: bool, policy: Policy) -> bool:
    """Report whether a peer may send requests."""
    return policy.client_keys is not None or is_this_machine


def check_client_key(head: RequestHead, arrival: Arrival, policy: Policy) -> Refusal | None:
    """Refuse with 401 if client keys are configured and the request contains none of them."""
    if policy.client_keys is None or arrival.authenticated or arrival.replay:
        return None
    if shows_client_key(head, policy):
        return None
    return Refusal(401, "a client key is needed; send one of those in the gateway_clients file")


def shows_client_key(head: RequestHead, policy: Policy) -> bool:
    """Report whether any slot for keys contains a client key."""
    keys = tuple(islice(keys_in(head), MAX_KEYS + 1))
    return len(keys) <= MAX_KEYS and any(map(policy.knows_key, keys))


def check_admission(
    head: RequestHead, arrival: Arrival, policy: Policy, knows_host: Callable[[str, int], bool]
) -> Refusal | None:
    """Return the refusal of a request that is inadmissible under any rule; requests to hosts without rules pass."""
    if arrival.mode == "reverse" and head.verb == "CONNECT":
        return Refusal(400, NOT_A_PROXY)
    if refusal := _check_any(head):
        return refusal
    is_ours = arrival.mode == "reverse" or knows_host(head.host, head.port)
    if not is_ours and not _names_rules(head, arrival, knows_host):
        return None
    return _check_names(head, arrival, policy) or _check_origin(head, policy) or _check_form(head)


def check_replay(head: RequestHead, knows_host: Callable[[str, int], bool]) -> Refusal | None:
    """Return the refusal of a request that the user sends again, perhaps after an edit."""
    return _check_any(head) or (_check_form(head) if knows_host(head.host, head.port) else None)


def _check_any(head: RequestHead) -> Refusal | None:
    """Check what holds on hosts without rules too."""
    if head.scheme not in DEFAULT_PORTS:  # free text in HTTP/2
        return Refusal(400, "the scheme is neither http nor https")
    if head.verb in ("TRACE", "TRACK"):  # some servers know the one under the other's name
        return Refusal(403, TRACE_REFUSED)
    return Refusal(400, LONG_PATH) if len(head.path) > MAX_PATH_CHARACTERS else None


def _names_rules(head: RequestHead, arrival: Arrival, knows_host: Callable[[str, int], bool]) -> bool:
    """Report whether any of the hosts that the request claims to ask has rules."""
    named = [*head.all("host"), head.authority, arrival.sni or ""]
    return any(knows_host(*place) for name in named if (place := _lenient_place(name, head)))


def _lenient_place(name: str, head: RequestHead) -> tuple[str, int] | None:
    """Return the host and port in a Host value, however malformed: a near miss of a rule's host is checked too."""
    bare = name.strip().rpartition("@")[2].partition("/")[0].partition("#")[0]
    for candidate in (bare, bare.partition(":")[0], name.strip().partition(":")[0]):
        try:
            place = parse_authority(candidate)
        except ValueError:
            continue
        return place.host, place.port or head.port
    return None


def _check_names(head: RequestHead, arrival: Arrival, policy: Policy) -> Refusal | None:
    claims = head.all("host")
    if head.authority and claims != (head.authority,):
        claims = (head.authority, *claims)
    if len(claims) != 1:
        return Refusal(400, f"expected exactly one Host, the request has {len(claims) or 'none'}")
    try:
        claim = parse_authority(claims[0])
    except ValueError:
        return Refusal(400, "the Host header is not a host name or address")
    if arrival.mode == "reverse":
        return _check_reverse_host(claim, head, arrival, policy)
    if claim.host != head.host or (claim.port or DEFAULT_PORTS[head.scheme]) != head.port:
        return Refusal(421, "the Host header names another place than the request goes to")
    if arrival.tls and not _sni_agrees(arrival, head.host):
        return Refusal(421, "the TLS server name differs from the host of the request")
    return None


def _sni_agrees(arrival: Arrival, host: str) -> bool:
    if arrival.sni is None:
        # CONNECT names the target; a transparent listener knows only its address.
        return arrival.inside_connect or arrival.mode != "transparent"
    return _name_of(arrival.sni) == host


def _name_of(sni: str) -> str | None:
    """Return a TLS server name in normal form; None for anything that is no name."""
    try:
        return normal_host(sni)
    except ValueError:
        return None


def _check_reverse_host(
    claim: Authority, head: RequestHead, arrival: Arrival, policy: Policy
) -> Refusal | None:
    own = ("localhost", head.host, arrival.listen_host)
    if not _is_ours(claim.host, own, policy):
        return Refusal(
            421, "the Host header does not name this listener; list further names in gateway_hosts"
        )
    if arrival.tls and arrival.sni is not None and not _is_ours(_name_of(arrival.sni), own, policy):
        return Refusal(421, "the TLS server name does not name this listener")
    return None


def _is_ours(host: str | None, own: tuple[str, ...], policy: Policy) -> bool:
    return host is not None and (host in own or is_loopback(host) or host in policy.hosts)


def _check_origin(head: RequestHead, policy: Policy) -> Refusal | None:
    if origins := head.all("origin"):
        if all(listed_origin(origin, policy) for origin in origins):
            return None
        return Refusal(
            403, "web pages may not use this gateway; list an origin in gateway_origins to allow it"
        )
    sites = {site.strip().lower() for site in head.all("sec-fetch-site")}
    return None if sites.issubset(OWN_SITES) else Refusal(403, CROSS_SITE)


def listed_origin(origin: str, policy: Policy) -> bool:
    """Report whether the user allows pages of this origin to use a listener; `null` never is."""
    place = origin.strip().lower().rstrip("/")
    if place in policy.origins:
        return "*" not in place
    scheme, mark, host = place.partition("://")
    return f"{scheme}{mark}*" in policy.origins and HOST_IN_ORIGIN.fullmatch(host) is not None


def _check_form(head: RequestHead) -> Refusal | None:
    """Refuse parts that are free text in HTTP/2 but would break the head of HTTP/1, and ambiguous paths."""
    if _BLANK.search(head.method.encode("utf-8", "surrogateescape")):
        return Refusal(400, "the method is not a word")
    is_path = head.target.startswith("/") or (head.target == "*" and head.method == "OPTIONS")
    if not is_path or _NOT_IN_TARGET.search(head.target):
        return Refusal(
            400, "the request target is not a path, or holds a blank, a control character or a fragment"
        )
    names, values = zip(*head.fields, strict=True) if head.fields else ((), ())
    if _LINE_BREAK.search(b"".join(values)):
        return Refusal(400, "a header value holds a line break or NUL")
    if not all(names) or _BLANK.search(b"".join(names)):
        return Refusal(400, "a header name holds a blank or a control character")
    if head.has_odd_path:
        return Refusal(400, ODD_PATH)
    return Refusal(400, TWO_READINGS) if has_two_readings(head) else None


def without_proxy_keys(head: RequestHead, policy: Policy) -> RequestHead:
    """Return the head without the keys that are meant for this proxy, which no upstream may see.

    They are `Proxy-Authorization` (RFC 9110, 11.7.2) and a client key of this gateway, wherever it is.
    """
    if PROXY_KEY in head.values:
        head = replace(head, fields=tuple([item for item in head.fields if lower_name(item[0]) != PROXY_KEY]))
    return head if policy.client_keys is None else without_gateway_keys(head, policy.knows_key)
