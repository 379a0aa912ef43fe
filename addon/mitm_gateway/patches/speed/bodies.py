"""Large request bodies: received into one block, which then is the body."""

from __future__ import annotations

from io import BytesIO
from typing import Any

from mitmproxy.net.http.http1 import expected_http_body_size
from mitmproxy.proxy.layers.http import HttpStream
from mitmproxy.proxy.layers.http._events import RequestData
from mitmproxy.proxy.utils import ReceiveBuffer

from ..patch import Patches, Unexpected

# From here on the pieces of several bodies that arrive at once would break up the memory between them.
LARGE_BYTES = 1 << 20
# A larger body is announced to a gateway with a higher limit than usual; its pieces are joined as before.
MOST_BYTES = 64 << 20


def whole_bodies(patches: Patches) -> None:
    """Receive a large body of known length into one block; mitmproxy joins its pieces at the end, in a second one."""
    consume = HttpStream.state_consume_request_body
    parts = {name for name in vars(ReceiveBuffer) if callable(getattr(ReceiveBuffer, name))}
    if not parts <= {name for name in dir(Block) if callable(getattr(Block, name))}:
        raise Unexpected("utils.ReceiveBuffer")

    def state_consume_request_body(self: Any, event: Any) -> Any:
        held = self.request_body_buf
        if type(event) is RequestData and type(held) is ReceiveBuffer and len(held) >= LARGE_BYTES:
            size = expected_http_body_size(self.flow.request)
            if size is not None and len(held) < size <= MOST_BYTES:
                self.request_body_buf = Block(size, bytes(held))
        return consume(self, event)

    patches.set(HttpStream, "state_consume_request_body", state_consume_request_body)


class Block:
    """mitmproxy's buffer of a message, in one block for the whole length.

    The system provides a page of it when something is written there, so a client that announces much and sends little
    takes no more memory than what it sends.
    """

    def __init__(self, size: int, begun: bytes) -> None:
        self._file = BytesIO(bytes(size))
        self._file.write(begun)

    def __iadd__(self, piece: bytes) -> Block:
        self._file.write(piece)
        return self

    def __len__(self) -> int:
        return self._file.tell()

    def __bool__(self) -> bool:
        return len(self) > 0

    def __bytes__(self) -> bytes:
        self._file.truncate()  # at the position: a request over HTTP/2 may end before its length
        return self._file.getvalue()  # not a copy: the block itself

    def clear(self) -> None:
        """Release the block."""
        self._file = BytesIO()
