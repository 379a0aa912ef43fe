"""The tee on a response: each chunk passes at once, with the model restored if asked, and a copy is kept."""

import logging
from collections.abc import Callable
from typing import Protocol

from ..credentials.clock import elapsed_s
from ..llm.usage import Usage, UsageReader
from ..wire.refusal import ANY_FAULT

logger = logging.getLogger(__name__)


class Restorer(Protocol):
    """Edits a response while it streams."""

    def feed(self, chunk: bytes) -> bytes:
        """Return what may leave after this chunk."""

    def flush(self) -> bytes:
        """Return what is still held at the end."""


def _nothing() -> None: ...


class Tee:
    """Passes the chunks of a response and keeps a copy of up to `limit` bytes.

    mitmproxy calls `feed` for every chunk and with `b""` at the end. It must never raise (the client would wait for
    ever), nor return `b""` for data (that would end a chunked response).
    """

    def __init__(self, limit: int, restorer: Restorer | None, usage: UsageReader | None) -> None:
        self._limit = limit
        self._restorer = restorer
        self._usage = usage
        self.on_chunk: Callable[[], None] = _nothing
        self._kept = bytearray()
        self.size = 0
        self.first_chunk_at: float | None = None
        self.last_chunk_at: float | None = None

    def feed(self, chunk: bytes) -> bytes | list[bytes]:
        """Return the bytes to send on; an empty list if all of them are held back."""
        self.last_chunk_at = elapsed_s()
        if self.first_chunk_at is None:
            self.first_chunk_at = self.last_chunk_at
        passed = self._restored(chunk)
        try:
            self._keep(passed)
            # As the upstream sent it: its own name of the model is the one to report.
            if self._usage is not None and chunk:
                self._usage.feed(chunk)
            self.on_chunk()
        except ANY_FAULT as fault:
            logger.warning("a response could not be recorded: %s", type(fault).__name__)
        return passed or []

    def _restored(self, chunk: bytes) -> bytes:
        restorer = self._restorer
        if restorer is None:
            return chunk
        try:
            return restorer.feed(chunk) if chunk else restorer.flush()
        except ANY_FAULT as fault:
            logger.warning("the model's name could not be restored: %s", type(fault).__name__)
            self._restorer = None
            return chunk

    def _keep(self, passed: bytes) -> None:
        self.size += len(passed)
        room = self._limit - len(self._kept)
        if room > 0:
            self._kept += passed if len(passed) <= room else passed[:room]

    @property
    def is_cut(self) -> bool:
        """Return whether more bytes passed than the copy contains."""
        return self.size > len(self._kept)

    @property
    def has_fed(self) -> bool:
        """Return whether any of the response has passed."""
        return self.first_chunk_at is not None

    def kept(self) -> bytes:
        """Return the copy, up to the limit."""
        return bytes(self._kept)

    def close(self) -> None:
        """Release the copy and the callback: the response keeps the tee for as long as it is kept itself."""
        self._kept.clear()
        self.on_chunk = _nothing

    def usage(self) -> Usage | None:
        """Return the tokens and the model that the response reports; call once, at the end."""
        return self._usage.finish() if self._usage is not None else None
