"""A pool of simdjson parsers, whose buffers are used again for bodies of a similar size."""

# The buffers of a parser have some 17 times the size of a body and contain two copies of it. With new ones for each body
# the system would map and clear memory again and again; kept for one large body they would hold too much. The buffers
# that are freed also show glibc what sizes come, so that it keeps the other copies' memory too.

from collections.abc import Callable
from typing import Any

# One parser is kept for all bodies up to this size.
SMALL_BYTES = 1 << 18
# A parser is dropped after this many bodies in a row that have less than an eighth of its size.
MAX_IDLE = 100


class Parsers:
    """One parser for small bodies, and one for large ones, kept from the second body of about the same size on."""

    def __init__(self, new: Callable[[], Any]) -> None:
        self._new = new
        self._small = new()
        self._large: Any = None
        # Sizes are compared as powers of two.
        self._large_bits = self._last_bits = self._idle = 0

    def for_size(self, size: int) -> Any:
        """Return a parser for a body of this size."""
        bits = size.bit_length()
        self._idle = self._idle + 1 if bits + 3 < self._large_bits else 0
        if self._idle == MAX_IDLE:
            self._large, self._large_bits = None, 0
        return self._small if size <= SMALL_BYTES else self._large_for(bits)

    def _large_for(self, bits: int) -> Any:
        if bits > self._large_bits:
            if bits != self._last_bits:
                self._last_bits = bits
                return self._new()
            self._large, self._large_bits = self._new(), bits
        return self._large
