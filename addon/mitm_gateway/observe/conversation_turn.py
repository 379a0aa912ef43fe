"""One turn of a conversation beside the request that it continues: differences, cache, vendor's diagnosis, edits."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..llm.cache_diagnosis import diagnosis
from ..llm.prompt import Prompt
from ..llm.prompt_difference import Difference, difference, in_words
from ..text.printable import dollars, one_line


@dataclass(frozen=True, slots=True)
class ConversationTurn:
    """A request: its prompt as it was sent, the facts of its record, and its parsed response, if any."""

    prompt: Prompt
    facts: Mapping[str, Any] = field(default_factory=dict)
    response: Any = None


def turn_lines(earlier: ConversationTurn, later: ConversationTurn) -> list[str]:
    """Return the lines about a turn and the request that it continues."""
    found = difference(earlier.prompt.digest(), later.prompt.digest())
    lines = in_words(found, earlier.prompt, later.prompt)
    return [*lines, *_reuse(found), *_cache(later), *_edits(earlier.facts, later.facts, found)]


def _reuse(found: Difference) -> Iterator[str]:
    """Yield a line about the part of the prompt that a cache can serve, unless it is the whole."""
    if found.continues or found.is_prefix_kept:
        return
    tools = found.tools_gone or found.tools_new or found.tools_changed or found.are_tools_reordered
    if found.model is not None:
        yield "nothing can be read from the cache: each model has its own"
    elif tools:
        yield "the cache can serve nothing: the tools changed, and the prompt begins with them"
    elif found.is_system_changed:
        yield "the cache can serve the tools only: the system prompt changed, and comes next"
    else:
        yield f"the cache can serve the prompt up to message {found.same:,}"


def _cache(turn: ConversationTurn) -> Iterator[str]:
    facts = turn.facts
    read, written = facts.get("cache_read_tokens", 0), facts.get("cache_creation_tokens", 0)
    if (fresh := facts.get("fresh_tokens")) is not None:
        total = read + written + fresh
        share = f" ({read * 100 // total} % of the prompt)" if total else ""
        cost = f"; cost {dollars(facts['cost_usd'])}" if "cost_usd" in facts else ""
        yield f"cache: {read:,} tokens read{share}, {written:,} written, {fresh:,} fresh{cost}"
    if reason := diagnosis(turn.response):
        yield f"the vendor's diagnosis: {reason}"


def _edits(before: Mapping[str, Any], after: Mapping[str, Any], found: Difference) -> Iterator[str]:
    """Yield a line about the edits of the gateway, and whether they changed the prompt."""
    if not before or not after:
        return
    old, new = _edited(before), _edited(after)
    if old == new:
        if any(new):
            yield f"gateway: the same edits in both requests ({_edits_in_words(new)}); they did not change the prompt"
        else:
            yield "gateway: no edit of the body in either request"
        return
    effect = "they did not change the prompt" if found.is_prefix_kept else "they may have changed the prompt"
    yield f"gateway: before: {_edits_in_words(old)}; now: {_edits_in_words(new)}; {effect}"


def _edited(facts: Mapping[str, Any]) -> tuple[str, tuple[str, ...]]:
    """Return the mapping of the model, and the edits that changed the body; those of the rule where that is unknown."""
    model, sent = facts.get("model"), facts.get("model_sent")
    mapping = f"{model} → {sent}" if sent and sent != model else ""
    edits = facts.get("applied")
    if edits is None:
        edits = facts.get("edits", ()) if "bytes_received" in facts else ()
    return mapping, tuple(edits)


def _edits_in_words(edited: tuple[str, tuple[str, ...]]) -> str:
    mapping, edits = edited
    return one_line(", ".join(filter(None, (mapping, *edits)))) or "no edit"
