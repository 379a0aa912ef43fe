"""Recorded requests grouped into sessions, and the totals of each session."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from ..llm.prompt import Prompt
from ..llm.session import agent_in_headers, response_id, session_in_bytes, session_in_headers
from ..observe.conversation_turn import Turn, turn_lines
from ..observe.sessions import Sessions
from ..text.printable import one_line
from .listing import cost, cost_usd, models, token_counts, when
from .recorded import Recorded

_HEADING = f"{'session':<38} {'requests':>8}  {'first':<19}  {'last':<19}  models"
_MAX_MODELS = 8


def grouped(requests: Iterable[Recorded]) -> Iterator[Recorded]:
    """Yield the requests with the names of their sessions."""
    sessions: Sessions[int] = Sessions()
    for each in requests:
        head, prompt = each.head, each.prompt
        named = session_in_headers(head.get) or session_in_bytes(each.request.raw)
        if prompt is not None:
            answered = response_id(each.response.raw) if each.response else None
            agent = agent_in_headers(head.get)
            named = sessions.place(each.number, prompt.digest(), named, agent, answered).session
        yield replace(each, session=named and each.masks.text(one_line(named)))


def of_session(requests: Iterable[Recorded], wanted: str) -> Iterator[Recorded]:
    """Yield the requests of the sessions whose name begins like this."""
    return (each for each in requests if (each.session or "").startswith(wanted))


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


def _turn(recorded: Recorded, prompt: Prompt) -> Turn:
    known = cost_usd(recorded.entry)
    facts = recorded.entry if known is None else {**recorded.entry, "cost_usd": known}
    return Turn(prompt, facts, recorded.answer)
