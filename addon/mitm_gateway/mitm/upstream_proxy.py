"""The proxy between the gateway and its upstreams: chosen for each connection, and used by requests and tunnels."""

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Callable

import certifi
from mitmproxy import ctx, http
from mitmproxy.connection import Client, Server
from mitmproxy.proxy import mode_specs

from ..patches.patch import Streams
from ..patches.safety.error_pages import OWN_FAULT
from ..wire.addresses import UrlScheme, hostport
from ..wire.proxies import Proxies, Proxy
from ..wire.request import as_bytes
from .listeners import leads_here, listen_ports
from .proxy_tunnel import ProxyError, asks_for_login, authorization, dial, reach
from .requests import Requests

logger = logging.getLogger(__name__)

# The figures of the vendors' SDKs, whose own probes end at the gateway: networks drop connections that are
# silent for some minutes while a model thinks, and after a laptop's sleep no answer is ever received on one.
_PROBE_AFTER_S, _PROBES = 60, 5
_KEEP_ALIVE = {
    "TCP_KEEPIDLE": _PROBE_AFTER_S,
    "TCP_KEEPALIVE": _PROBE_AFTER_S,  # its name on macOS
    "TCP_KEEPINTVL": _PROBE_AFTER_S,
    "TCP_KEEPCNT": _PROBES,
}


class UpstreamProxy:
    """Opens the connections to upstreams, through a proxy where the settings name one."""

    def __init__(self, proxies: Callable[[], Proxies], requests: Requests) -> None:
        self._proxies = proxies
        self._requests = requests
        # Connections on which the proxy expects whole URLs, by id; they carry plain http.
        self._plain: dict[str, Proxy] = {}
        self._announced: Proxies | None = None
        self._ignored: set[Proxy] = set()
        self._last_fault = ""

    def announce(self) -> None:
        """Log which proxies are used, once for each setting."""
        proxies = self._proxies()
        if proxies != self._announced:
            self._announced = proxies
            if text := proxies.describe():
                logger.info(text)
            self._task = asyncio.get_running_loop().create_task(self._find_own(proxies))

    async def _find_own(self, proxies: Proxies) -> None:
        for proxy in proxies:
            await self._is_own(proxy)

    async def dial(self, client: Client, server: Server, **options: object) -> Streams:
        """Open a connection to a server, directly or through a proxy. Raises OSError."""
        streams = await self._open(client, server, **options)
        _keep_alive(streams[1].get_extra_info("socket"))
        return streams

    async def _open(self, client: Client, server: Server, **options: object) -> Streams:
        assert server.address is not None
        host, port = server.address[0], server.address[1]
        proxy, is_plain = await self._route(client, server)
        if proxy is None:
            return await asyncio.open_connection(host, port, **options)  # type: ignore[arg-type]
        try:
            if not is_plain:
                return await dial(proxy, host, port, trust=_trust(proxy), **options)
            streams = await reach(proxy, trust=_trust(proxy), **options)
        except ProxyError as fault:
            self._log(fault)
            raise
        self._plain[server.id] = proxy
        return streams

    async def _route(self, client: Client, server: Server) -> tuple[Proxy | None, bool]:
        """Return the proxy for a connection, and whether it is sent whole URLs instead of a CONNECT."""
        proxies = self._proxies()
        if proxies.is_empty or isinstance(client.proxy_mode, mode_specs.UpstreamMode):
            return None, False
        assert server.address is not None
        scheme, is_request = self._kind(client, server)
        proxy = proxies.route(scheme, server.address[0])
        if proxy is None or await self._is_own(proxy):
            return None, False
        return proxy, is_request and proxy.scheme in ("http", "https")

    def _log(self, fault: ProxyError) -> None:
        if fault.sentence != self._last_fault:  # once, however many connections a client tries
            self._last_fault = fault.sentence
            logger.warning(fault.sentence)

    def _kind(self, client: Client, server: Server) -> tuple[UrlScheme, bool]:
        """Return the scheme whose proxy a connection uses, and whether it carries plain requests.

        Like curl, a WebSocket and everything that is not HTTP gets a tunnel.
        """
        if not server.tls:
            for entry in self._requests.values():
                request = entry.flow.request
                is_its = entry.flow.client_conn.id == client.id and request.scheme == "http"
                if is_its and (request.host, request.port) == server.address:
                    return "http", "upgrade" not in request.headers
        return "https", False

    async def _is_own(self, proxy: Proxy) -> bool:
        """Return whether a proxy is this gateway, as in a shell that is set up for the gateway's clients."""
        if proxy.port not in listen_ports() or not await leads_here(proxy.host):
            return False
        if proxy not in self._ignored:
            self._ignored.add(proxy)
            logger.warning("%s names this gateway itself, and is ignored", proxy.source)
        return True

    def forget(self, server: Server) -> None:
        """Forget a connection that has been closed."""
        self._plain.pop(server.id, None)

    def for_proxy(self, server: Server, request: http.Request) -> http.Request:
        """Return a request with its whole URL, and with the login, for a proxy that forwards plain http."""
        proxy = self._plain.get(server.id) if self._plain else None
        if proxy is None:
            return request
        copy, data = request.copy(), request.data
        place = hostport(data.host, data.port, "http")
        copy.data.path = as_bytes(f"http://{place}") + (b"" if data.path == b"*" else data.path)
        if not request.is_http2:
            copy.authority = ""  # mitmproxy writes one in front of the path
        if login := authorization(proxy):
            copy.headers["Proxy-Authorization"] = login
        return copy

    def asks_for_login(self, server: Server, response: http.Response) -> str | None:
        """Return the reason if a 407 is that of a proxy to which whole URLs were sent."""
        if (proxy := self._plain.get(server.id)) is None:
            return None
        fault = ProxyError(proxy, asks_for_login(proxy, b"\n" + bytes(response.headers)))
        self._log(fault)
        return OWN_FAULT + fault.sentence


def _keep_alive(opened: socket.socket) -> None:
    """Have the operating system probe a silent connection; it works without, so a refusal is no fault."""
    with contextlib.suppress(OSError):
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEP_ALIVE.items():
            if hasattr(socket, name):
                opened.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _trust(proxy: Proxy) -> ssl.SSLContext | None:
    """Return the TLS settings that verify a proxy's certificate, the same as for an upstream's."""
    if proxy.scheme != "https":
        return None
    options = ctx.options
    folder = options.ssl_verify_upstream_trusted_confdir
    file = options.ssl_verify_upstream_trusted_ca or (None if folder else certifi.where())
    context = ssl.create_default_context(cafile=file, capath=folder)
    if options.ssl_insecure:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context
