"""Requests of every conversation API in one form, and their differences in words."""

from typing import Any

from mitm_gateway.llm.prompt import Prompt, prompt_of
from mitm_gateway.llm.prompt_difference import difference, in_words
from support.table import table


def prompt(body: Any) -> Prompt:
    found = prompt_of(body)
    assert found is not None
    return found


def words(earlier: Any, later: Any, *, with_text: bool = True) -> list[str]:
    one, other = prompt(earlier), prompt(later)
    found = difference(one.digest(), other.digest())
    return in_words(found, one, other) if with_text else in_words(found)


def messages(count: int) -> list[dict[str, Any]]:
    return [{"role": ("user", "assistant")[at % 2], "content": f"message {at}"} for at in range(count)]


MESSAGES = {"model": "m", "system": "Be brief.", "tools": [{"name": "a"}], "messages": messages(3)}
# The same conversation in the form of each API: two messages, and the two after them.
FORMS: dict[str, Any] = {
    "messages": lambda turns: {
        "model": "m", "system": [{"type": "text", "text": "S"}],
        "messages": [{"role": role, "content": [{"type": "text", "text": text}]} for role, text in turns],
    },
    "chat": lambda turns: {
        "model": "m", "messages": [{"role": "system", "content": "S"},
                                   *({"role": role, "content": text} for role, text in turns)],
    },
    "responses": lambda turns: {
        "model": "m", "instructions": "S",
        "input": [{"type": "message", "role": role, "content": [{"type": "input_text", "text": text}]}
                  for role, text in turns],
    },
    "gemini": lambda turns: {
        "systemInstruction": {"parts": [{"text": "S"}]},
        "contents": [{"role": {"assistant": "model"}.get(role, role), "parts": [{"text": text}]}
                     for role, text in turns],
    },
    "converse": lambda turns: {
        "system": [{"text": "S"}, {"cachePoint": {"type": "default"}}],
        "messages": [{"role": role, "content": [{"text": text}]} for role, text in turns],
    },
}  # fmt: skip
TURNS = [("user", "one"), ("assistant", "two"), ("user", "three"), ("assistant", "four")]


@table("api", FORMS)
def test_a_request_of_any_api_is_compared(api: str) -> None:
    form = FORMS[api]
    assert prompt(form(TURNS)).system == "S"
    assert words(form(TURNS[:2]), form(TURNS)) == ["same up to message 2, two messages new"]
    changed = [TURNS[0], ("assistant", "TWO"), *TURNS[2:]]
    assert words(form(TURNS), form(changed))[0] == (
        f"same up to message 1; message 2 ({'model' if api == 'gemini' else 'assistant'}) changed at character 1"
    )


def test_the_marks_of_the_cache_are_no_difference() -> None:
    marked = {"type": "text", "text": "message 2", "cache_control": {"type": "ephemeral"}}
    nested = [{"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "r"}]}]
    before = {**MESSAGES, "messages": [*messages(2), {"role": "user", "content": [marked]}]}
    assert words(before, MESSAGES) == ["same messages (3)"]
    assert words(before, {**before, "system": [{**marked, "text": "Be brief."}]}) == ["same messages (3)"]
    one = {**MESSAGES, "messages": [{"role": "user", "content": nested}]}
    other = {**MESSAGES, "messages": [{"role": "user", "content": [{**nested[0], "cache_control": {}}]}]}
    assert words(one, other) == ["same messages (1)"]


def test_changed_tools_are_named() -> None:
    later = {**MESSAGES, "tools": [{"name": "b"}]}
    assert words(MESSAGES, later) == ["tools changed: `a` gone, `b` new", "same messages (3)"]
    assert words(
        {**MESSAGES, "tools": [{"name": "a", "description": "old"}, {"name": "b"}]},
        {**MESSAGES, "tools": [{"name": "b"}, {"name": "a", "description": "new"}]},
    )[:4] == [
        "tools changed: `a` changed, order changed",
        "  `a` differs at character 18",
        '    - {"description": "old", "name": "a"}',
        '    + {"description": "new", "name": "a"}',
    ]


def test_a_changed_system_prompt_has_its_place() -> None:
    text = "You are a helper. " * 70
    before, after = (
        {**MESSAGES, "system": f"{text}Today is {day}. Be brief."} for day in ("Monday", "Friday")
    )
    assert words(before, after) == [
        "system changed at character 1,270",
        "  - … are a helper. Today is Monday. Be brief.",
        "  + … are a helper. Today is Friday. Be brief.",
        "same messages (3)",
    ]
    assert words(before, after, with_text=False) == ["system changed", "same messages (3)"]


def test_parts_that_do_not_belong_to_the_prompt_are_separated() -> None:
    block = {"type": "text", "text": "x-anthropic-billing-header: cc_version=1; cch=0a;"}
    before, after = ({**MESSAGES, "system": [{**block, "text": block["text"] + end}]} for end in "ab")
    assert words(before, after)[0].startswith("billing line of Claude Code changed")
    assert words(MESSAGES, {**MESSAGES, "metadata": {"user_id": "u"}, "stream": True}) == [
        "same messages (3)"
    ]
    assert words({**MESSAGES, "max_tokens": 1}, {**MESSAGES, "max_tokens": 2, "temperature": 0}) == [
        "settings changed: max_tokens 1 → 2, temperature unset → 0",
        "same messages (3)",
    ]
    assert words(MESSAGES, {**MESSAGES, "model": "n"})[0] == "model changed: m → n"


def test_shorter_and_compacted_conversations_are_recognised() -> None:
    assert words({"messages": messages(5)}, {"messages": messages(3)}) == [
        "same up to message 3, two messages gone"
    ]
    summary = [{"role": "user", "content": "Summary"}, *messages(1)]
    lines = words({"messages": messages(50)}, {"messages": summary})
    assert lines[0] == "message 1 (user) changed at character 1"
    assert lines[-1] == "50 messages before, 2 now"


def test_a_request_may_continue_a_stored_response() -> None:
    later = {"model": "m", "input": "more", "previous_response_id": "resp_1"}
    assert words({"model": "m", "input": "hello"}, later) == [
        "continues stored response resp_1, one message new"
    ]


def test_text_of_a_request_cannot_act_on_a_terminal() -> None:
    before, after = (
        {
            "model": f"m\x1b{end}",
            "system": f"s\x1b[2J\u202e{end}",
            "tools": [{"name": f"t\x07{end}"}],
            "messages": [],
        }
        for end in "ab"
    )
    for line in words(before, after):
        assert line.isprintable()


@table(
    "body",
    [None, 1, [], {}, {"messages": 1}, {"messages": [None, 1, "x", [], {}, {"role": 1, "content": {"a": [1]}}]},
     {"input": [{"type": "function_call_output", "call_id": "c"}], "tools": [1, {"function": 2}], "system": 3},
     {"contents": [{"parts": 1}]}, {"messages": [{"content": [None, 1, {"text": None}]}], "model": ["x"]}],
)  # fmt: skip
def test_malformed_bodies_never_raise(body: Any) -> None:
    found = prompt_of(body)
    assert found is None or difference(found.digest(), found.digest()).is_prefix_kept
