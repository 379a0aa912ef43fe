"""The parts of HTTP/1.1 messages, read from received bytes."""

import contextlib
from abc import ABC, abstractmethod

from support.answers import Header


class EndError(ConnectionError):
    """The peer has closed the connection."""


class Incoming(ABC):
    """Received bytes of HTTP/1.1, read in its parts."""

    _buffer = b""

    @abstractmethod
    def receive(self) -> bytes:
        """Return the next bytes, empty at the end."""

    def read_until(self, marker: bytes) -> bytes:
        """All bytes up to and with `marker`, framing included."""
        while (end := self._buffer.find(marker)) < 0:
            self._receive_more()
        return self._take(end + len(marker))

    def read_exactly(self, length: int) -> bytes:
        while len(self._buffer) < length:
            self._receive_more()
        return self._take(length)

    def read_rest(self) -> bytes:
        """All bytes up to the end of the connection."""
        with contextlib.suppress(EndError):
            while True:
                self._receive_more()
        return self._take(len(self._buffer))

    def read_message_head(self) -> tuple[str, tuple[Header, ...]]:
        """The start line of the next message, and its fields."""
        start, *fields = self.read_until(b"\r\n\r\n").decode("latin-1").split("\r\n")[:-2]
        pairs = (line.partition(":") for line in fields)
        return start, tuple((name, value.strip()) for name, _, value in pairs)

    def read_chunk(self) -> bytes:
        """The next chunk of a chunked body, empty for the last one (trailers are not expected)."""
        size = int(self.read_until(b"\r\n").partition(b";")[0], 16)
        return self.read_exactly(size + 2)[:-2]

    def read_chunks(self) -> bytes:
        """A chunked body up to its end."""
        return b"".join(iter(self.read_chunk, b""))

    def _receive_more(self) -> None:
        if not (data := self.receive()):
            raise EndError(f"closed behind {self._buffer!r}")
        self._buffer += data

    def _take(self, length: int) -> bytes:
        taken, self._buffer = self._buffer[:length], self._buffer[length:]
        return taken
