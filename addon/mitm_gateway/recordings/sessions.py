"""Recorded requests grouped into sessions, and the totals of each session.

A session is named by the client, or found by a shared beginning of the conversation. Hashes are kept, not bodies, and
their number is bounded; one pass over the hashes of a request finds its session.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from ..llm.prompt import Digest, Prompt
from ..llm.session import agent_in_headers, response_id, session_in_bytes, session_in_headers
from ..observe.conversation_turn import ConversationTurn, turn_lines
from ..text.printable import one_line
from .listing import cost, cost_usd, models, token_counts, when
from .recorded import Recorded

_HEADING = f"{'session':<38} {'requests':>8}  {'first':<19}  {'last':<19}  models"
_MAX_MODELS = 8
# The number of beginnings of conversations that are remembered; each is one hash (about 150 bytes).
MAX_BEGINNINGS = 50_000


class Sessions:
    """The sessions of a stream of requests, which are placed in the order of their arrival."""

    def __init__(self, limit: int = MAX_BEGINNINGS) -> None:
        self._limit = limit
        self._by_beginning: dict[int, str] = {}
        self._unnamed = 0

    def __len__(self) -> int:
        return len(self._by_beginning)

    def place(
        self,
        digest: Digest,
        session: str | None = None,
        agent: str | None = None,
        response_id: str | None = None,
    ) -> str:
        """Return the name of a request's session: the client's, or "unnamed-1" and so on.

        Without a name, a request belongs to the session of the same agent with which it shares the longest beginning
        of its messages. A request with `previous_response_id` continues the request whose response has that
        `response_id`.
        """
        chain = _chain(hash((session, agent)), digest)
        asked = [*chain, _stored(digest.continues)] if digest.continues else chain
        found = next((name for key in reversed(asked) if (name := self._by_beginning.get(key))), None)
        name = session or found or self._next_name()
        # Many sessions open with the same words, so a beginning counts from the model's first answer on.
        certain = chain[digest.first_reply - 1 :] if digest.first_reply else chain[-1:]
        self._remember([*certain, _stored(response_id)] if response_id else certain, name)
        return name

    def _remember(self, keys: Sequence[int], session: str) -> None:
        for key in keys:
            self._by_beginning.pop(key, None)  # the newest ones are at the end
            self._by_beginning[key] = session
        for key in list(islice(self._by_beginning, max(0, len(self) - self._limit))):
            del self._by_beginning[key]

    def _next_name(self) -> str:
        self._unnamed += 1
        return f"unnamed-{self._unnamed}"


def _chain(seed: int, digest: Digest) -> list[int]:
    """Return a hash for each beginning of the conversation."""
    keys, key = [], seed
    for message in digest.messages:
        key = hash((key, message))
        keys.append(key)
    return keys


def _stored(response_id: str) -> int:
    return hash(("response", response_id))


def grouped(requests: Iterable[Recorded]) -> Iterator[Recorded]:
    """Yield the requests with the names of their sessions."""
    sessions = Sessions()
    for each in requests:
        head, prompt = each.head, each.prompt
        named = session_in_headers(head.get) or session_in_bytes(each.request.raw)
        if prompt is not None:
            answered = response_id(each.response.raw) if each.response else None
            agent = agent_in_headers(head.get)
            named = sessions.place(prompt.digest(), named, agent, answered)
        yield replace(each, session=named and each.masks.text(one_line(named)))


@dataclass(slots=True)
class _Total:
    requests: int
    first: str
    last: str
    models: dict[str, None]


def totals(requests: Iterable[Recorded]) -> Iterator[str]:
    """Yield a heading, and a line for each session in the order in which they begin."""
    found: dict[str, _Total] = {}
    for each in requests:
        now = when(each)
        total = found.setdefault(each.session or "-", _Total(0, now, now, {}))
        total.requests, total.last = total.requests + 1, now
        if each.asked_model and len(total.models) < _MAX_MODELS:
            total.models[each.asked_model] = None
    yield _HEADING
    for name, total in found.items():
        names = one_line(", ".join(total.models)) or "-"
        yield f"{name:<38} {total.requests:>8}  {total.first:<19}  {total.last:<19}  {names}"


def comparison(earlier: Recorded, later: Recorded) -> Iterator[str]:
    """Yield the difference between two requests in words, and the share of the cache in each."""
    for each in (earlier, later):
        entry = each.entry
        line = f"{each.number}. {when(each)}  {models(entry)}  {token_counts(entry)}  {cost(entry)}"
        yield each.masks.text(one_line(line))
    before, after = earlier.prompt, later.prompt
    if before is None or after is None:
        yield f"request {(earlier if before is None else later).number} is not a conversation"
        return
    lines = turn_lines(_turn(earlier, before), _turn(later, after))
    if not earlier.facts or not later.facts:
        lines = [line for line in lines if not line.startswith("gateway: ")]
    for line in lines:
        yield later.masks.text(earlier.masks.text(line))


def _turn(recorded: Recorded, prompt: Prompt) -> ConversationTurn:
    known = cost_usd(recorded.entry)
    facts = recorded.entry if known is None else {**recorded.entry, "cost_usd": known}
    return ConversationTurn(prompt, facts, recorded.answer)
