"""Checks of the path to the gateway: proxy variables and the port."""

import contextlib
import socket
from urllib.parse import urlsplit

from ...clients.catalogue import base_url_variables
from ...clients.network import no_proxy_entries, proxy_variable, ruled_host
from ...rules.ruleset import RuleSet
from ...wire.addresses import is_loopback, normal_host
from ...wire.proxies import ENVIRONMENT, Proxies, Proxy, is_excepted
from .finding import Fault, Findings, Good, Subject

_TIMEOUT_S = 2.0
# A gateway always refuses it, names itself, and forwards nothing.
_TRACE = b"TRACE / HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nConnection: close\r\n\r\n"
_OWN_NAME = b"mitm-gateway"
_EXCEPTIONS = ("no_proxy", "NO_PROXY")
_HTTPS_VARIABLES = ("https_proxy", "HTTPS_PROXY")


def check_exceptions(ruleset: RuleSet, subject: Subject) -> Findings:
    """Find proxy variables that lead requests past the gateway, or through a proxy in front of it."""
    environ = subject.environ
    for variable in _EXCEPTIONS if is_client_of_gateway(subject) else ():
        for entry in no_proxy_entries(environ.get(variable, "")):
            if host := ruled_host(entry, ruleset):
                yield Fault(
                    f"{variable} names {entry}, so requests to {host} bypass the gateway",
                    f"remove {entry} from {variable}",
                )
    exceptions = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
    for variable in base_url_variables():
        host = urlsplit(environ.get(variable, "")).hostname or ""
        proxy = proxy_variable(environ)
        if proxy and is_loopback_name(host) and not is_excepted(host, exceptions):
            yield Fault(
                f"{proxy} would receive the requests that {variable} sends to {host}",
                f"add {host} to NO_PROXY",
            )


def is_client_of_gateway(subject: Subject) -> bool:
    """Return whether HTTPS_PROXY leads to a gateway on this machine, not to a proxy in front of upstreams."""
    try:
        proxy = Proxies.of(ENVIRONMENT, subject.environ).https
    except ValueError:
        return False
    return proxy is not None and proxy.source in _HTTPS_VARIABLES and is_gateway(proxy, subject)


def is_gateway(proxy: Proxy, subject: Subject) -> bool:
    """Return whether a proxy is a gateway, or may become one when it is started."""
    if not is_loopback_name(proxy.host):
        return False
    return proxy.port == subject.port or is_gateway_port(proxy.port) is not False


def is_loopback_name(host: str) -> bool:
    """Return whether a name or address can only be this machine's loopback."""
    with contextlib.suppress(ValueError):
        return host == "localhost" or is_loopback(normal_host(host))
    return False


def check_port(subject: Subject) -> Findings:
    """Check whether the port is free, or taken by a gateway or by another program."""
    found = is_gateway_port(subject.port)
    if found is None:
        yield Good(f"port {subject.port} is free")
    elif found:
        yield Good(f"port {subject.port} is served by a gateway")
    else:
        yield Fault(
            f"port {subject.port} is taken by another program",
            "end that program, or give the gateway another --port",
        )


def is_gateway_port(port: int) -> bool | None:
    """Return whether a gateway listens on a port of this machine, by its answer to TRACE; None if nothing does."""
    answer = b""
    try:
        with socket.create_connection(("127.0.0.1", port), _TIMEOUT_S) as connection:
            connection.settimeout(_TIMEOUT_S)
            with contextlib.suppress(OSError):
                connection.sendall(_TRACE % port)
                answer = b"".join(iter(lambda: connection.recv(4096), b""))
    except OSError:
        return None
    return _OWN_NAME in answer
