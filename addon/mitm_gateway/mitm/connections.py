"""Connections: which peers may connect, which tunnels are opened and decrypted, and where the gateway connects to."""

import contextlib
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from mitmproxy import ctx, http
from mitmproxy.connection import Client, Server
from mitmproxy.proxy import commands, events, layer, mode_specs
from mitmproxy.proxy.layer import NextLayer
from mitmproxy.proxy.layers import DNSLayer, HttpLayer, TCPLayer
from mitmproxy.proxy.layers.http import HTTPMode
from mitmproxy.proxy.layers.tls import HTTP_ALPNS
from mitmproxy.proxy.server_hooks import ServerConnectionHookData
from mitmproxy.tls import ClientHelloData

from ..exchange import guard
from ..exchange.steps import NO_RULES
from ..patches.safety.error_pages import OWN_FAULT, cause_of
from ..rules.ruleset import RuleSet
from ..text.printable import one_line
from ..wire.addresses import Upstream, hostport, is_loopback, normal_host
from ..wire.refusal import ANY_FAULT, Refusal, is_cancelled
from ..wire.request import Arrival
from . import flows
from .lifecycle import Lifecycle
from .listeners import leads_here, listen_ports
from .requests import Requests, UnderWay

logger = logging.getLogger(__name__)

_NOT_HERE = "mitm-gateway: only this machine may connect; gateway_clients lets others in"
_NO_KEY = "mitm-gateway: a client key is needed, and this protocol cannot carry one"
_LOOP = "mitm-gateway: a request must not come back to this proxy or to mitmweb"
# Both ends of one connection note its time within a moment.
_SAME_CONNECTION_S = 5.0
# Clients choose the names of passing hosts.
_MOST_FAILED = 200
# With hundreds of connections at once, some client has the port of an upstream's connection by chance: it is the same
# connection if its other end is this listener too. Behind a port mapping that end is another one; then a chain of
# this many decides.
_MOST_HOPS = 3
LOOP = Refusal(
    508, "the upstream leads back to this gateway; correct the rule's upstream, or the address of its name"
)
NO_BASE_URL = Refusal(
    502,
    "this listener is an HTTPS proxy, and a request must not come back to it; set HTTPS_PROXY, "
    "or start the gateway without --intercept for a base URL",
)
_MOVED = "mitm-gateway: the connection is not to where the rule sends the request"
_NEARBY = "mitm-gateway: other machines do not reach this machine's own services"
# The first line of an HTTP/2 connection; no HTTP/1 request has this method.
_PREFACE = b"PRI * HTTP/2.0\r\n"
# A first line, if it is complete, that no HTTP/1 request has.
_OTHER_LINE = re.compile(rb"(?:\r\n)*(?![^\r\n]* HTTP/1\.\d\r?\n)[^\r\n]+\r?\n")

Address: TypeAlias = tuple[str, int]


@dataclass(frozen=True, slots=True)
class _Own:
    """A connection to an upstream: when it was opened, its other end, and how often its request had been sent before."""

    opened: float
    remote: Address
    hops: int


class Connections:
    """The client connections that are open, and the decisions on each connection."""

    def __init__(self, lifecycle: Lifecycle, requests: Requests) -> None:
        self._lifecycle = lifecycle
        self._requests = requests
        self._tunnels: set[str] = set()
        self._authenticated: set[str] = set()
        # Connections to upstreams, by their local address and port.
        self._own: dict[Address, _Own] = {}
        # How often a client's request seems to have left the gateway before, by the client's id.
        self._hops: dict[str, int] = {}
        # How requests of a client arrive, by the client's id, once one has arrived.
        self._arrivals: dict[str, Arrival] = {}
        self._failed: set[str] = set()

    # ---- clients ----

    def admit(self, client: Client) -> None:
        """Drop a peer that may not use the gateway before anything is read from it."""
        try:
            may_speak = guard.check_peer(_is_this_machine(client), self._lifecycle.settings.policy)
        except ANY_FAULT as fault:
            logger.warning("a peer could not be checked: %s", type(fault).__name__)
            may_speak = False
        if not may_speak:
            client.error = _NOT_HERE
        elif _carries_no_key(client.proxy_mode) and self._needs_key(client):
            client.error = _NO_KEY
        if client.error:
            logger.warning("dropped a connection from %s: %s", client.peername[0], client.error)

    def forget(self, client: Client) -> None:
        """Forget a connection that has been closed."""
        self._tunnels.discard(client.id)
        self._authenticated.discard(client.id)
        self._hops.pop(client.id, None)
        self._arrivals.pop(client.id, None)

    def note_opened(self, client: Client, server: Server) -> None:
        """Remember the ends of a connection to an upstream, to recognise it if it comes back."""
        if server.sockname and server.peername and server.timestamp_tcp_setup is not None:
            hops = self._hops.get(client.id, 0)
            own = _Own(server.timestamp_tcp_setup, _end(server.peername), hops)
            self._own[_end(server.sockname)] = own

    def note_closed(self, server: Server) -> None:
        """Forget a connection to an upstream that has been closed."""
        if server.sockname is not None:
            self._own.pop(_end(server.sockname), None)

    def note_failed_tls(self, client: Client) -> None:
        """Log once for a reverse listener what to change in a client that asks it for https."""
        if client.sockname is None or not _is_reverse(client.proxy_mode):
            return
        place = hostport(*_end(client.sockname), "")
        if place not in self._failed:
            self._failed.add(place)
            logger.warning(
                "%s: a client asks this listener for https or wss, and does not trust mitmproxy's certificate; "
                "write http://%s or ws://%s in the client",
                *([place] * 3),
            )

    def note_failed(self, data: ServerConnectionHookData) -> None:
        """Log once that a passing host cannot be reached; requests that a rule takes are recorded."""
        address, fault = data.server.address, data.server.error or ""
        mine = (entry for entry in self._requests.values() if entry.flow.client_conn.id == data.client.id)
        if address is None or fault.startswith(OWN_FAULT) or any(entry.exchange.plan for entry in mine):
            return
        text = f"{address[0]}:{address[1]}: {cause_of(fault) or fault}"
        if text not in self._failed and len(self._failed) < _MOST_FAILED:
            self._failed.add(text)
            logger.warning(one_line(text))

    def is_own(self, client: Client) -> bool:
        """Return whether the peer of a connection is this gateway itself, whatever name or mapping led here."""
        own = self._own.get(_end(client.peername))
        # A client may use the local port of an older connection to another address, so both must be as old.
        if own is not None and abs(client.timestamp_start - own.opened) < _SAME_CONNECTION_S:
            is_certain = client.sockname is not None and own.remote == _end(client.sockname)
            self._hops[client.id] = _MOST_HOPS + 1 if is_certain else own.hops + 1
        return self._hops.get(client.id, 0) > _MOST_HOPS

    def arrival_of(self, flow: http.HTTPFlow) -> Arrival | Refusal:
        """Return how a request reached the gateway, or the refusal of one that the gateway has sent itself.

        Its first request settles that for a connection, until a tunnel is opened on it. A replay has only the id of the
        connection that it repeats.
        """
        client, is_replay = flow.client_conn, flow.is_replay == "request"
        if not is_replay and (known := self._arrivals.get(client.id)):
            return known
        if self.is_own(client):
            return LOOP
        arrival = self._arrival(flow)
        if _asks_proxy_itself(flow, arrival):
            return NO_BASE_URL
        if not is_replay:
            self._arrivals[client.id] = arrival
        return arrival

    def _arrival(self, flow: http.HTTPFlow) -> Arrival:
        client = flow.client_conn
        return flows.arrival_of(
            client,
            inside_connect=client.id in self._tunnels,
            authenticated=client.id in self._authenticated,
            replay=flow.is_replay == "request",
        )

    def check_tunnel(self, flow: http.HTTPFlow) -> Refusal | None:
        """Return why a tunnel is refused; a tunnel that is not refused is remembered."""
        ruleset = self._lifecycle.ruleset()
        if self.is_own(flow.client_conn):
            return LOOP
        if ruleset is None:
            return NO_RULES
        self._arrivals.pop(flow.client_conn.id, None)  # TLS may follow, and a client key has been shown
        head = flows.head_of(flow, self._arrival(flow))
        has_rules = ruleset.knows_host(head.host, head.port)
        policy = self._lifecycle.settings.policy
        if policy.client_keys is not None:
            if guard.shows_client_key(head, policy):
                self._authenticated.add(flow.client_conn.id)
            elif not has_rules:
                return Refusal(401, "a client key is needed; send one as Proxy-Authorization")
        if not has_rules and ruleset.unmatched == "block":
            return Refusal(404, "no rule covers this host, and unmatched requests are blocked")
        self._tunnels.add(flow.client_conn.id)
        return None

    # ---- protocols ----

    def choose_decryption(self, data: ClientHelloData) -> None:
        """Leave hosts without rules undecrypted where `gateway_intercept` says `rules`."""
        ruleset = self._lifecycle.ruleset()
        if ruleset is not None and self._lifecycle.settings.only_rule_hosts:
            address = data.context.server.address
            # Without an address, TLS is with this proxy itself: a client names it as https://.
            is_tunnelled = address is not None and not _has_rules(ruleset, data.client_hello.sni, address)
            data.ignore_connection = is_tunnelled

    def choose_protocol(self, data: NextLayer) -> None:
        """Have everything read as HTTP where rules decide, so that anything else is refused instead of relayed.

        Of text, mitmproxy reads every protocol as HTTP/1, and HTTP/2 without TLS as well.
        """
        context = data.context
        if isinstance(data.layer, DNSLayer):
            if self._needs_key(context.client):
                data.layer = _Closed(context)
        elif isinstance(data.layer, TCPLayer):
            # Without a flow it is a tunnel that the user wants undecrypted.
            if data.layer.flow is not None and self._rules_decide(data):
                data.layer = HttpLayer(context, HTTPMode.transparent)
        elif _begins_socks(data):
            self._note_socks(context.client)
            data.layer = _Closed(context)
        elif _is_tunnel(data) and _carries_other_lines(data) and not self._rules_decide(data):
            data.layer = TCPLayer(context, ignore=self._lifecycle.settings.only_rule_hosts)
        if _begins_http2(data):
            context.client.alpn, context.client.alpn_offers = b"h2", HTTP_ALPNS  # as if TLS had chosen it

    def _note_socks(self, client: Client) -> None:
        """Log once what to change in a client that takes an HTTP listener for a SOCKS proxy."""
        place = hostport(*_end(client.sockname or ("", 0)), "")
        if (text := f"{place}: a client speaks SOCKS") not in self._failed:
            self._failed.add(text)
            logger.warning("%s, and this is an HTTP listener; write http:// for its proxy", text)

    def _rules_decide(self, data: NextLayer) -> bool:
        """Return whether rules decide on the host of a connection, or block it."""
        ruleset, server = self._lifecycle.ruleset(), data.context.server
        if ruleset is None or ruleset.unmatched == "block":
            return True
        return _has_rules(ruleset, data.context.client.sni, server.address)

    # ---- upstreams ----

    async def check_upstream(self, data: ServerConnectionHookData) -> None:
        """Refuse a connection just before it is opened if it leads where no rule sends it, and after any fault."""
        try:
            data.server.error = data.server.error or await self._objection(data)
        except ANY_FAULT as fault:
            data.server.error = f"mitm-gateway: internal fault ({type(fault).__name__})"
            if is_cancelled(fault):
                raise

    async def _objection(self, data: ServerConnectionHookData) -> str | None:
        address = data.server.address
        if address is None:
            return None
        host, port = address[0], address[1]
        if self.is_own(data.client) or (port in self._own_ports() and await leads_here(host)):
            return _LOOP
        mine = [entry for entry in self._requests.values() if entry.flow.client_conn.id == data.client.id]
        planned = [entry for entry in mine if entry.exchange.plan is not None]
        if any(_leads_to(entry, data) for entry in planned):
            return None
        passing = [entry.flow.request for entry in mine if entry.exchange.is_passing]
        if not planned and not passing and self._needs_key(data.client):
            return _NO_KEY
        if planned and not any((request.host, request.port) == (host, port) for request in passing):
            return _MOVED
        if _comes_from_elsewhere(data) and await leads_here(host, nearby=True):
            return _NEARBY
        return None

    def _needs_key(self, client: Client) -> bool:
        """Return whether keys are required and this client has shown none; only HTTP requests and CONNECT can show one."""
        return (
            self._lifecycle.settings.policy.client_keys is not None and client.id not in self._authenticated
        )

    def _own_ports(self) -> frozenset[int]:
        web = ctx.options.web_port if "web_port" in ctx.options else None
        return listen_ports() | (frozenset({web}) if web else frozenset())


def _end(address: Sequence[Any]) -> Address:
    return address[0], address[1]


class _Closed(layer.Layer):
    """A connection that ends before anything is read from it."""

    def _handle_event(self, event: events.Event) -> layer.CommandGenerator[None]:
        if isinstance(event, events.Start):
            yield commands.CloseConnection(self.context.client)


def _carries_no_key(mode: mode_specs.ProxyMode) -> bool:
    """Return whether a listener speaks a protocol in which a client cannot send a key."""
    if isinstance(mode, mode_specs.ReverseMode):
        return mode.scheme not in ("http", "https", "http3")
    return isinstance(mode, mode_specs.DnsMode)


def _is_reverse(mode: mode_specs.ProxyMode) -> bool:
    return isinstance(mode, mode_specs.ReverseMode)


def _begins_socks(data: NextLayer) -> bool:
    """Return whether a client begins with SOCKS 4 or 5 where it has named no address and has no TLS."""
    is_http = isinstance(data.layer, HttpLayer) and not _is_tunnel(data) and not data.context.client.tls
    return is_http and data.data_client()[:1] in (b"\x04", b"\x05")


def _is_tunnel(data: NextLayer) -> bool:
    """Return whether a client has named an address that it connects to, instead of one for each request."""
    return data.context.server.address is not None and not _is_reverse(data.context.client.proxy_mode)


def _carries_other_lines(data: NextLayer) -> bool:
    """Return whether a client begins with a line of another protocol than HTTP/1."""
    is_http = isinstance(data.layer, HttpLayer) and data.context.client.alpn is None
    return is_http and _OTHER_LINE.match(data.data_client()) is not None


def _begins_http2(data: NextLayer) -> bool:
    """Return whether a client without TLS begins with HTTP/2, as gRPC and AWS's SDK for JavaScript do."""
    return not data.context.client.tls and data.data_client().startswith(_PREFACE)


# Local capture has this machine's own programs as peers, by whatever address (on Linux 169.254.0.1). Peers of a tunnel
# choose the address that they show.
_HERE_BY_MODE = {"local": True, "wireguard": False, "tun": False}


def _is_this_machine(client: Client) -> bool:
    """Return whether a peer is a program of this machine."""
    known = _HERE_BY_MODE.get(client.proxy_mode.type_name)
    return is_loopback(client.peername[0].partition("%")[0]) if known is None else known


def _asks_proxy_itself(flow: http.HTTPFlow, arrival: Arrival) -> bool:
    """Return whether a client has an HTTPS proxy as its base URL."""
    if arrival.mode != "regular" or arrival.inside_connect or flow.request.port not in listen_ports():
        return False
    return flow.request.host == "localhost" or is_loopback(flow.request.host)


def _comes_from_elsewhere(data: ServerConnectionHookData) -> bool:
    """Return whether another machine chose the destination; a reverse listener's is the user's own choice."""
    return not _is_reverse(data.client.proxy_mode) and not _is_this_machine(data.client)


def _leads_to(entry: UnderWay, data: ServerConnectionHookData) -> bool:
    via, address = entry.flow.server_conn.via, data.server.address
    if address is None:
        return False
    if via is not None and address == via[1]:
        return True  # the user's own upstream proxy, which then connects to the destination
    return entry.exchange.allows(Upstream("https" if data.server.tls else "http", address[0], address[1]))


def _has_rules(ruleset: RuleSet, sni: str | None, address: tuple[str, int] | None) -> bool:
    """Return whether a rule covers a host, as mitmproxy names it."""
    names = [name for name in (sni, address[0] if address else None) if name]
    port = address[1] if address else 443
    for name in names:
        with contextlib.suppress(ValueError):
            if ruleset.knows_host(normal_host(name), port):
                return True
    return False
