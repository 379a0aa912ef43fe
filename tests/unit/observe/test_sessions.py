"""Requests grouped into sessions by name or by a shared beginning, in bounded memory."""

from typing import Any

from mitm_gateway.llm.prompt import Digest, prompt_of
from mitm_gateway.observe.sessions import Sessions


def digest(*texts: str, **others: Any) -> Digest:
    turns = [{"role": ("user", "assistant")[at % 2], "content": text} for at, text in enumerate(texts)]
    found = prompt_of({"messages": turns, **others})
    assert found is not None
    return found.digest()


def test_a_session_is_found_by_the_beginning_that_requests_share() -> None:
    sessions: Sessions[int] = Sessions()
    assert sessions.place(1, digest("a")).session == "unnamed-1"
    assert sessions.place(2, digest("x")).session == "unnamed-2"
    third = sessions.place(3, digest("a", "b", "c"))
    assert (third.session, third.earlier and third.earlier.identity) == ("unnamed-1", 1)
    # The last message was edited: the model's first answer is still shared.
    fourth = sessions.place(4, digest("a", "b", "C", "d", "e"))
    assert (fourth.session, fourth.earlier and fourth.earlier.identity) == ("unnamed-1", 3)


def test_sessions_that_open_with_the_same_words_stay_apart() -> None:
    sessions: Sessions[int] = Sessions()
    sessions.place(1, digest("hello", "one", "go on"))
    assert sessions.place(2, digest("hello", "two", "go on")).session == "unnamed-2"


def test_named_sessions_and_agents_are_kept_apart() -> None:
    sessions: Sessions[int] = Sessions()
    sessions.place(1, digest("a"), "s")
    assert sessions.place(2, digest("a", "b", "c"), "t").earlier is None
    assert sessions.place(3, digest("a", "b", "c"), "s", "agent").earlier is None
    found = sessions.place(4, digest("a", "b", "c"), "s")
    assert (found.session, found.earlier and found.earlier.identity) == ("s", 1)


def test_the_earlier_request_is_the_newest_with_the_longest_beginning() -> None:
    sessions: Sessions[int] = Sessions()
    sessions.place(1, digest("a", "b", "c"), "s")
    sessions.place(2, digest("a", "b", "c"), "s")
    sessions.place(3, digest("title, please"), "s")
    found = sessions.place(4, digest("a", "b", "c", "d", "e"), "s")
    assert found.earlier is not None
    assert found.earlier.identity == 2


def test_a_stored_response_leads_to_its_request() -> None:
    sessions: Sessions[int] = Sessions()
    sessions.place(1, digest("a"), response_id="resp_1")
    found = sessions.place(2, digest("b", previous_response_id="resp_1"), response_id="resp_2")
    assert (found.session, found.earlier and found.earlier.identity) == ("unnamed-1", 1)


def test_memory_is_bounded_however_long_a_session_is() -> None:
    sessions: Sessions[int] = Sessions(limit=100)
    for number in range(1, 300, 2):
        assert (
            sessions.place(number, digest(*map(str, range(number))), "s").earlier is not None or number == 1
        )
    assert len(sessions) <= 100
