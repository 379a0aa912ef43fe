"""Requests grouped into sessions, and the earlier request that each one continues.

A session is named by the client, or found by a shared beginning of the conversation. Hashes are kept, not bodies, and
their number is bounded; one pass over the hashes of a request places it.
"""

from dataclasses import dataclass
from itertools import islice
from typing import Generic, TypeVar

from ..llm.prompt import Digest

# The number of beginnings of conversations that are remembered; each is one hash (about 150 bytes).
MAX_BEGINNINGS = 50_000
# Names of the sessions that no client names: "unnamed-1" and so on.
UNNAMED = "unnamed"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Earlier(Generic[T]):
    """A request that was placed before."""

    identity: T
    digest: Digest
    session: str


@dataclass(frozen=True, slots=True)
class Placed(Generic[T]):
    """A request's session and the request that it continues, if any."""

    session: str
    earlier: Earlier[T] | None


class Sessions(Generic[T]):
    """The sessions of a stream of requests, which are placed in the order of their arrival."""

    def __init__(self, limit: int = MAX_BEGINNINGS) -> None:
        self._limit = limit
        self._beginnings: dict[int, Earlier[T]] = {}
        self._unnamed = 0

    def place(
        self,
        identity: T,
        digest: Digest,
        session: str | None = None,
        agent: str | None = None,
        response_id: str | None = None,
    ) -> Placed[T]:
        """Place a request. `identity` is returned with later requests that continue it; it may be any value.

        Two requests belong together if the client names the same session and agent, or none. Among them the earlier
        request is the newest one with which the request shares the longest beginning of its messages. A request with
        `previous_response_id` continues the request whose response has that `response_id`.
        """
        chain = _chain(hash((session, agent)), digest)
        asked = [*chain, _stored(digest.continues)] if digest.continues else chain
        earlier = next((found for key in reversed(asked) if (found := self._beginnings.get(key))), None)
        name = session or (earlier.session if earlier else self._next_name())
        # Many sessions open with the same words, so a beginning counts from the model's first answer on.
        certain = chain[digest.first_reply - 1 :] if digest.first_reply else chain[-1:]
        self._remember(
            [*certain, _stored(response_id)] if response_id else certain, Earlier(identity, digest, name)
        )
        return Placed(name, earlier)

    def _remember(self, keys: list[int], entry: Earlier[T]) -> None:
        for key in keys:
            self._beginnings.pop(key, None)  # the newest ones are at the end
            self._beginnings[key] = entry
        for key in list(islice(self._beginnings, max(0, len(self._beginnings) - self._limit))):
            del self._beginnings[key]

    def __len__(self) -> int:
        return len(self._beginnings)

    def _next_name(self) -> str:
        self._unnamed += 1
        return f"{UNNAMED}-{self._unnamed}"


def _chain(seed: int, digest: Digest) -> list[int]:
    """Return a hash for each beginning of the conversation."""
    keys, key = [], seed
    for message in digest.messages:
        key = hash((key, message))
        keys.append(key)
    return keys


def _stored(response_id: str) -> int:
    return hash(("response", response_id))
