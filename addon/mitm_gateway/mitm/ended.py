"""Flows that have ended and are not recorded yet."""

import asyncio
import logging
from collections.abc import Callable

from ..wire.refusal import ANY_FAULT
from .requests import UnderWay

logger = logging.getLogger(__name__)

# More flows would hold up the event loop for a millisecond, and larger ones the memory of their bodies.
_MOST, _MOST_BYTES = 8, 256 << 10
_LATEST_S = 0.05


class Ended:
    """Records flows a few at a time, once their answers have been written.

    For all but the first, the code of recording is then in the processor's cache.
    """

    def __init__(self, record: Callable[[UnderWay], None]) -> None:
        self._record = record
        self._waiting: list[UnderWay] = []
        self._bytes = 0
        self._timer: asyncio.TimerHandle | None = None

    def add(self, entry: UnderWay) -> None:
        """Record a flow within moments."""
        self._waiting.append(entry)
        self._bytes += entry.size
        loop = asyncio.get_running_loop()
        if len(self._waiting) == _MOST or self._bytes > _MOST_BYTES:
            loop.call_later(0, self.record)  # after the data that has arrived, as events of streams
        elif self._timer is None:
            self._timer = loop.call_later(_LATEST_S, self.record)

    def record(self) -> None:
        """Record the flows that wait."""
        if self._timer is not None:
            self._timer.cancel()
        waiting, self._waiting, self._bytes, self._timer = self._waiting, [], 0, None
        for entry in waiting:
            try:
                self._record(entry)
            except ANY_FAULT as fault:
                logger.warning("a flow could not be recorded: %s", type(fault).__name__)
            # The layers of a closed connection keep its last request until garbage is searched for among old objects.
            entry.flow.request.data.content = None
