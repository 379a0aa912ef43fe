"""Requests grouped into sessions by name or by a shared beginning, in bounded memory."""

from typing import Any

from mitm_gateway.llm.prompt import Digest, prompt_of
from mitm_gateway.recordings.sessions import Sessions


def digest(*texts: str, **others: Any) -> Digest:
    turns = [{"role": ("user", "assistant")[at % 2], "content": text} for at, text in enumerate(texts)]
    found = prompt_of({"messages": turns, **others})
    assert found is not None
    return found.digest()


def test_a_session_is_found_by_the_beginning_that_requests_share() -> None:
    sessions = Sessions()
    assert sessions.place(digest("a")) == "unnamed-1"
    assert sessions.place(digest("x")) == "unnamed-2"
    assert sessions.place(digest("a", "b", "c")) == "unnamed-1"
    # The last message was edited: the model's first answer is still shared.
    assert sessions.place(digest("a", "b", "C", "d", "e")) == "unnamed-1"


def test_sessions_that_open_with_the_same_words_stay_apart() -> None:
    sessions = Sessions()
    sessions.place(digest("hello", "one", "go on"))
    assert sessions.place(digest("hello", "two", "go on")) == "unnamed-2"


def test_named_sessions_and_agents_are_kept_apart() -> None:
    sessions = Sessions()
    assert sessions.place(digest("a"), "s") == "s"
    assert sessions.place(digest("a", "b", "c")) == "unnamed-1"
    assert sessions.place(digest("a", "b", "c"), None, "agent") == "unnamed-2"
    assert sessions.place(digest("a", "b", "c", "d", "e")) == "unnamed-1"


def test_a_stored_response_leads_to_its_session() -> None:
    sessions = Sessions()
    sessions.place(digest("a"), response_id="resp_1")
    follow_up = digest("b", previous_response_id="resp_1")
    assert sessions.place(follow_up, response_id="resp_2") == "unnamed-1"


def test_memory_is_bounded_however_long_a_session_is() -> None:
    sessions = Sessions(limit=100)
    for number in range(1, 300, 2):
        assert sessions.place(digest(*map(str, range(number)))) == "unnamed-1"
    assert len(sessions) <= 100
