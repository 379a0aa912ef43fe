"""TLS connections that an alert ends, such as that of an upstream that demands a client certificate."""

from collections.abc import Generator
from typing import Any

from mitmproxy.connection import ConnectionState
from mitmproxy.proxy.events import ConnectionClosed
from mitmproxy.proxy.layers import tls
from OpenSSL import SSL

from ..patch import Patches


def end_at_alerts(patches: Patches) -> None:
    """Tell the layer above of a connection that an alert has ended."""
    original = tls.TLSLayer.receive_data

    def receive_data(self: Any, data: bytes) -> Generator[Any, Any, None]:
        yield from original(self, data)
        # OpenSSL notes an alert like the peer's own end, for which mitmproxy has cleared CAN_READ and told the layer.
        if self.tls.get_shutdown() & SSL.RECEIVED_SHUTDOWN and self.conn.state & ConnectionState.CAN_READ:
            self.conn.state &= ~ConnectionState.CAN_READ
            yield from self.event_to_child(ConnectionClosed(self.conn))

    patches.set(tls.TLSLayer, "receive_data", receive_data)
