"""Options of an export: listeners, clients, and the places of files."""

from __future__ import annotations

from dataclasses import dataclass

from ..wire.addresses import DEFAULT_PORTS, hostport, is_loopback, parse_authority

DEFAULT_HOST = "api.anthropic.com"
# The public authorities on Debian, Ubuntu and Envoy's images.
DEFAULT_CA = "/etc/ssl/certs/ca-certificates.crt"


@dataclass(frozen=True, slots=True)
class Listener:
    """One listener and the host that its clients mean, as `reverse:https://HOST` in mitmproxy."""

    address: str
    port: int
    host: str = DEFAULT_HOST
    host_port: int = DEFAULT_PORTS["https"]

    @classmethod
    def parse(cls, text: str) -> Listener:
        """Parse `[ADDRESS:]PORT[=HOST[:PORT]]`. Raises ValueError with the expected form."""
        place, _, meant = text.partition("=")
        try:
            address, port = parse_address(place)
            host = parse_authority(meant or DEFAULT_HOST)
        except ValueError:
            raise ValueError(
                f'"{text}" is not a listener; expected [ADDRESS:]PORT or [ADDRESS:]PORT=HOST'
            ) from None
        return cls(address, port, host.host, host.port or DEFAULT_PORTS["https"])

    @property
    def is_local(self) -> bool:
        """Return whether only this machine can reach the listener."""
        return is_loopback(self.address)

    @property
    def authority(self) -> str:
        """The Host header of requests to the meant host."""
        return hostport(self.host, self.host_port, "https")


def parse_address(text: str) -> tuple[str, int]:
    """Parse `[ADDRESS:]PORT`, by default on 127.0.0.1. Raises ValueError."""
    place = parse_authority(text if ":" in text else f"127.0.0.1:{text}")
    if place.port is None:
        raise ValueError("has no port")
    return place.host, place.port


@dataclass(frozen=True, slots=True)
class Options:
    """Settings of an export. Paths are as Envoy sees them."""

    listeners: tuple[Listener, ...] = (Listener("127.0.0.1", 8080),)
    admin: tuple[str, int] = ("127.0.0.1", 9901)
    metrics: tuple[str, int] | None = None
    config_dir: str = "/etc/mitm-gateway"
    secrets_dir: str = "/run/secrets/mitm-gateway"
    clients: str | None = None
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    body_limit: int = 64 << 20
    max_heap: int = 1536 << 20
    """Bytes of memory above which Envoy refuses new requests."""
    ca: str = DEFAULT_CA
    log: str = "/dev/stdout"
    tokens: bool = False
    """Log token counts, for which every response is read."""

    def named(self, name: str, listener: Listener) -> str:
        """Return a name for something of this listener; those of further listeners have a number."""
        number = self.listeners.index(listener)
        return f"{name}-{number + 1}" if number else name
