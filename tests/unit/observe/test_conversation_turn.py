"""A turn beside the request that it continues: cache, diagnosis of the vendor, edits of the gateway."""

from typing import Any

from mitm_gateway.llm.cache_diagnosis import diagnosis
from mitm_gateway.llm.prompt import prompt_of
from mitm_gateway.observe.conversation_turn import ConversationTurn, turn_lines
from support.table import table

BODY: dict[str, Any] = {
    "model": "m",
    "system": "S",
    "tools": [{"name": "a"}],
    "messages": [{"role": "user", "content": "one"}],
}
NEXT = [*BODY["messages"], {"role": "assistant", "content": "two"}, {"role": "user", "content": "three"}]


def turn(facts: dict[str, Any] | None = None, response: Any = None, **changes: Any) -> ConversationTurn:
    prompt = prompt_of({**BODY, **changes})
    assert prompt is not None
    return ConversationTurn(prompt, facts or {}, response)


def test_a_turn_shows_the_cache_and_the_cost() -> None:
    facts = {
        "cache_read_tokens": 30_000,
        "cache_creation_tokens": 1_596,
        "fresh_tokens": 4,
        "cost_usd": 0.0271,
    }
    assert turn_lines(turn(), turn(facts, messages=NEXT)) == [
        "same up to message 1, two messages new",
        "cache: 30,000 tokens read (94 % of the prompt), 1,596 written, 4 fresh; cost $0.0271",
    ]


@table(
    ("changes", "reach"),
    [
        ({"model": "n"}, "nothing can be read from the cache: each model has its own"),
        ({"tools": []}, "the cache can serve nothing: the tools changed, and the prompt begins with them"),
        ({"system": "T"}, "the cache can serve the tools only: the system prompt changed, and comes next"),
        (
            {"messages": [{"role": "user", "content": "ONE"}]},
            "the cache can serve the prompt up to message 0",
        ),
    ],
)
def test_a_change_shows_how_far_the_cache_can_reach(changes: dict[str, Any], reach: str) -> None:
    assert reach in turn_lines(turn(), turn(**changes))


@table(
    ("response", "told"),
    [
        ({"diagnostics": {"cache_miss_reason": {"type": "system_changed", "cache_missed_input_tokens": 12034}}},
         "system_changed, 12,034 tokens missed"),
        ({"diagnostics": {"cache_miss_reason": None}}, "no difference found so far"),
        ({"diagnostics": None}, "no difference found"),
        ({"prompt_cache_diagnostics": {"type": "cache_miss", "reason": "tools_changed", "cache_missed_tokens": 7}},
         "cache_miss, tools_changed, 7 tokens missed"),
        ({"prompt_cache_diagnostics": {"type": "cache_hit"}}, "cache_hit"),
        ({"content": []}, None),
        ([], None),
        ({"diagnostics": {"cache_miss_reason": {"type": "\x1b[2J" + "x" * 1000}}}, None),
    ],
)  # fmt: skip
def test_the_vendor_may_explain_a_miss(response: Any, told: str | None) -> None:
    found = diagnosis(response)
    if told is None and found is not None:
        assert found.isprintable()
        assert len(found) <= 300
        return
    assert found == told
    lines = turn_lines(turn(), turn(response=response))
    assert (f"the vendor's diagnosis: {told}" in lines) is (told is not None)


EDITED = {"model": "m", "model_sent": "m", "bytes_received": 9, "applied": ["remove tools[*].b"]}


@table(
    ("before", "after", "line"),
    [
        ({"model": "m"}, {"model": "m"}, "gateway: no edit of the body in either request"),
        (EDITED, EDITED, "gateway: the same edits in both requests (remove tools[*].b); they did not change the prompt"),
        ({"model": "m"}, EDITED, "gateway: before: no edit; now: remove tools[*].b; they may have changed the prompt"),
        ({"model": "m", "model_sent": "a"}, {"model": "m", "model_sent": "b"},
         "gateway: before: m → a; now: m → b; they may have changed the prompt"),
    ],
)  # fmt: skip
def test_a_turn_shows_whether_the_gateway_moved_the_prompt(
    before: dict[str, Any], after: dict[str, Any], line: str
) -> None:
    changes: dict[str, Any] = {} if before == after else {"tools": []}
    assert line in turn_lines(turn(before), turn(after, **changes))
