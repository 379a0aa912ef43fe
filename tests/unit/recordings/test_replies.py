"""Recorded responses, found by the request that a client makes."""

import json
from typing import Any

from mitm_gateway.recordings.replies import Comparison, Miss, Question, Replies
from support.table import table

BODY = {"model": "m", "messages": [{"role": "user", "content": "hi"}], "tools": [{"name": "Read"}]}


def question(body: dict[str, Any] | bytes = BODY, target: str = "/v1/messages", **changes: Any) -> Question:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    given = {"method": "POST", "host": "api.test", "port": 443, "model": "m", **changes}
    return Question(target=target, bodies=(data,), **given)


def replies(*questions: Question, **comparison: Any) -> Replies[int]:
    found: Replies[int] = Replies(Comparison(**comparison))
    for number, each in enumerate(questions, 1):
        found.add(number, each, number)
    return found


def test_equal_requests_get_their_responses_in_order_and_once() -> None:
    known = replies(question(), question())
    assert [known.take(question()) for _ in range(2)] == [1, 2]
    assert isinstance(known.take(question()), Miss)


def test_a_response_may_be_given_again() -> None:
    known = replies(question(), reuses=True)
    assert [known.take(question()) for _ in range(3)] == [1, 1, 1]


@table(
    "asked",
    [
        question({**BODY, "metadata": {"user_id": "another session"}}),
        question(json.dumps(dict(reversed(BODY.items())), indent=2).encode()),
        question(target="/v1/messages?key=secret"),
        question({**BODY, "model": "sent-name"}),
        Question("POST", "API.test", 443, "/v1/messages", "m", (b"{}", json.dumps(BODY).encode())),
    ],
)
def test_some_differences_do_not_keep_a_request_from_its_response(asked: Question) -> None:
    assert replies(question()).take(asked) == 1


def test_the_rotating_line_of_claude_code_does_not_matter() -> None:
    systems = [
        [
            {"type": "text", "text": f"x-anthropic-billing-header: {word}"},
            {"type": "text", "text": "Be brief."},
        ]
        for word in ("one", "two")
    ]
    first, second = (question({**BODY, "system": system}) for system in systems)
    assert replies(first).take(second) == 1


@table(
    ("asked", "where"),
    [
        (question(method="GET"), "method"),
        (question(host="other.test"), "host"),
        (question(port=80), "port"),
        (question(target="/v1/other"), "path"),
        (question(target="/v1/messages?beta=true"), "query"),
        (question(model="other"), "model"),
        (question({**BODY, "max_tokens": 1}), "max_tokens"),
        (question({"model": "m", "messages": BODY["messages"]}), "tools"),
        (question({**BODY, "messages": [{"role": "user", "content": "ho"}]}), "messages[0].content"),
        (question({**BODY, "messages": [*BODY["messages"], {"role": "assistant"}]}), "messages[1]"),
        (question({**BODY, "tools": [{"name": "Read", "\x1b[2J": 1}]}), "tools[0].␛[2J"),
        (question(b"not JSON"), "the body"),
        (question(b'{"a":' * 5000), "the body"),
    ],
)  # fmt: skip
def test_a_miss_names_the_nearest_request_and_the_first_field_that_differs(
    asked: Question, where: str
) -> None:
    far = question({"model": "m", "messages": []}, target="/elsewhere")
    miss = replies(far, question(), far).take(asked)
    assert isinstance(miss, Miss)
    assert miss.reason.endswith(f"; the nearest is number 2, which differs in {where}")


def test_an_empty_recording_contains_no_response() -> None:
    assert replies().take(question()) == Miss("the recording contains no response")


@table(
    ("comparison", "asked"),
    [
        ({"ignores_host": True}, question(host="other.test")),
        ({"ignores_port": True}, question(port=80)),
        ({"ignores_content": True}, question(b"anything", model=None)),
        ({"ignored_params": ("beta",)}, question(target="/v1/messages?beta=true")),
    ],
)
def test_the_options_of_mitmproxy_apply(comparison: dict[str, Any], asked: Question) -> None:
    assert replies(question(), **comparison).take(asked) == 1


def test_headers_count_where_an_option_says_so() -> None:
    known = replies(question(headers={"x-case": "one"}), headers=("X-Case",))
    miss = known.take(question(headers={"x-case": "two"}))
    assert isinstance(miss, Miss)
    assert miss.reason.endswith("differs in headers")
    assert known.take(question(headers={"x-case": "one"})) == 1
