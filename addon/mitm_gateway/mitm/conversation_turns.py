"""The turns of conversations among mitmproxy's flows: which request continues which, found when it is displayed.

Nothing is computed while requests pass. Digests are kept, not bodies, and the search looks at a bounded number of flows.
"""

import time
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from mitmproxy import ctx, exceptions, flow, http

from ..llm.conversation import is_conversation
from ..llm.prompt import Digest, Prompt, prompt_of
from ..llm.prompt_difference import shared_messages
from ..llm.read_body import read
from ..llm.session import agent_in_headers, response_id, session_in_bytes, session_in_headers
from ..observe.conversation_turn import ConversationTurn, turn_lines
from ..text.bounded_json import parsed
from ..text.redact import masked_text
from ..wire.content_encoding import DecodingError, decode
from .recorder import facts_of

# The flows that one search looks at, the requests that it compares, and the bytes that it may parse for that.
MAX_WALK, MAX_COMPARED, MAX_BYTES = 1_000, 16, 2 << 20
_MAX_DIGESTS = 128
# `gateway.diff` may take longer than a view.
MAX_DIFF_BYTES = 32 << 20

_digests: dict[tuple[str, int], Digest | None] = {}


def explained(later: http.HTTPFlow, limit: int = MAX_BYTES) -> list[str]:
    """Return the lines about a request and the one that it continues; none if it continues none.

    The bound is the number of bytes of bodies that are parsed.
    """
    if len(later.request.raw_content or b"") > limit or (turn := _turn(later, limit)) is None:
        return []
    earlier = _earlier(later, turn.prompt.digest(), limit)
    before = _turn(earlier, limit) if earlier is not None else None
    return turn_lines(before, turn) if before is not None else []


def compared(earlier: http.HTTPFlow, later: http.HTTPFlow) -> list[str]:
    """Return the lines about two requests. Raises CommandError if one of them is not a conversation."""
    one, other = (_turn(each, MAX_DIFF_BYTES) for each in (earlier, later))
    if one is None or other is None:
        request = (earlier if one is None else later).request
        raise exceptions.CommandError(f"{request.method} {request.path} is not a conversation")
    return turn_lines(one, other)


def _turn(of: http.HTTPFlow, limit: int) -> ConversationTurn | None:
    prompt = _prompt(of, limit)
    return None if prompt is None else ConversationTurn(prompt, facts_of(of), _response(of))


def _prompt(of: http.HTTPFlow, limit: int) -> Prompt | None:
    try:
        return prompt_of(parsed(_content(of.request, limit)))
    except (ValueError, RecursionError, DecodingError):
        return None


def _content(message: http.Message, limit: int) -> bytes:
    return decode(message.raw_content or b"", message.headers.get("content-encoding", ""), limit)


def _response(of: http.HTTPFlow) -> Any:
    if of.response is None or len(of.response.raw_content or b"") > MAX_BYTES:
        return None
    try:
        content = _content(of.response, MAX_BYTES)
    except DecodingError:
        return None
    return read(content, of.response.headers.get("content-type", ""), [], time.thread_time)


# ---- the search ----


def _earlier(later: http.HTTPFlow, digest: Digest, limit: int) -> http.HTTPFlow | None:
    """Return the newest request that shares the longest beginning of its messages with this one."""
    if digest.continues:
        return next((each for each in _candidates(later) if _stored_as(each) == digest.continues), None)
    is_named, best, most, left = _named(later)[0] is not None, None, 0, limit
    for candidate in _candidates(later):
        if _key(candidate) not in _digests:
            left -= len(candidate.request.raw_content or b"")
        if left < 0:
            break
        if (other := _digest(candidate, limit)) is None:
            continue
        same = shared_messages(other, digest)
        is_whole = same == len(other.messages)
        # Many sessions open with the same words, so a beginning counts from the model's first answer on.
        if same > most and (is_named or is_whole or 0 < other.first_reply <= same):
            best, most = candidate, same
        if best is candidate and is_whole:
            break
    return best


def _candidates(later: http.HTTPFlow) -> Iterator[http.HTTPFlow]:
    """Yield the requests before this one that may belong to its session, the newest first."""
    flows = reversed(_flows())
    for each in flows:
        if each.id == later.id:
            break
    wanted, found = _named(later), 0
    for each in islice(flows, MAX_WALK):
        if not isinstance(each, http.HTTPFlow) or not each.request.raw_content or _named(each) != wanted:
            continue
        request = each.request
        if is_conversation(request.host, request.method, request.path, "application/json"):
            yield each
            found += 1
            if found == MAX_COMPARED:
                return


def _flows() -> Sequence[flow.Flow]:
    """Return the flows of mitmweb or the console; none elsewhere."""
    try:
        flows: Sequence[flow.Flow] = ctx.master.commands.call("view.flows.resolve", "@all")
    except (AttributeError, exceptions.CommandError):
        return ()
    return flows


def _named(of: http.HTTPFlow) -> tuple[str | None, str | None]:
    """Return the session and the agent that the client names."""
    if facts := facts_of(of):
        return facts.get("session"), facts.get("agent")
    get = of.request.headers.get
    session = session_in_headers(get) or session_in_bytes(of.request.raw_content or b"")
    agent = agent_in_headers(get)
    return session and masked_text(session), agent and masked_text(agent)


def _digest(of: http.HTTPFlow, limit: int) -> Digest | None:
    """Return the digest of a request, remembered for the next search."""
    key = _key(of)
    if key not in _digests:
        if len(_digests) >= _MAX_DIGESTS:
            del _digests[next(iter(_digests))]
        prompt = _prompt(of, limit)
        _digests[key] = prompt.digest() if prompt is not None else None
    return _digests[key]


def _key(of: http.HTTPFlow) -> tuple[str, int]:
    """Return a key that changes with an edit of the body."""
    return of.id, hash(of.request.raw_content)


def _stored_as(of: http.HTTPFlow) -> str | None:
    """Return the identifier under which the response to a request is stored."""
    if of.response is None:
        return None
    try:
        return response_id(_content(of.response, MAX_BYTES))
    except DecodingError:
        return None
