"""The text of the Gateway view."""

from mitm_gateway.observe.gateway_view import RequestText, render

RECEIVED = RequestText(
    "POST https://api.anthropic.com/v1/messages",
    [("Host", "api.anthropic.com"), ("x-api-key", "****1a2b"), ("Accept", "*/*"), ("Content-Length", "812")],
)
FORWARDED = RequestText(
    "POST https://h.test/a/v1/messages",
    [("Host", "h.test"), ("accept", "*/*"), ("Content-Length", "790"), ("Authorization", "Bearer ****9f3c")],
)
FACTS = {
    "rule": "copilot",
    "outcome": "ok",
    "status": 200,
    "auth": "x-api-key → bearer",
    "credential": "gw",
    "credential_age_s": 12.3,
    "model": "claude-opus-4-8",
    "model_sent": "claude-opus-4.6",
    "edits": ["remove context_management"],
    "bytes_received": 812,
    "bytes_out": 790,
    "bytes_in": 4321,
    "first_event_ms": 350.0,
    "total_ms": 1350.0,
    "input_tokens": 812,
    "output_tokens": 96,
    "cache_read_tokens": 4096,
    "retry": "2",
    "notes": ["the rest is not kept"],
}


def test_the_report_compares_the_received_and_the_forwarded_request() -> None:
    text = render(FACTS, RECEIVED, FORWARDED)
    assert (
        text
        == """\
rule: copilot
outcome: ok, 200
note: the rest is not kept

received: POST https://api.anthropic.com/v1/messages
forwarded: POST https://h.test/a/v1/messages

auth: x-api-key → bearer
credential: gw, fetched 12 s before
model: claude-opus-4-8 → claude-opus-4.6
body edits of the rule:
  remove context_management
body: 812 → 790 bytes

timing: first event 350 ms, total 1,350 ms, 96 tokens per second
tokens: in 812, out 96, cache read 4,096
response: 4.3 kB
retry: number 2 by the client

headers changed:
  - Host: api.anthropic.com
  + Host: h.test
  - x-api-key: ****1a2b
  - Content-Length: 812
  + Content-Length: 790
  + Authorization: Bearer ****9f3c
headers unchanged:
    Accept: */*"""
    )


def test_repeated_headers_are_compared_one_by_one() -> None:
    received = RequestText("GET /", [("A", "1"), ("B", "2"), ("a", "1")])
    forwarded = RequestText("GET /", [("A", "1"), ("B", "2"), ("b", "2"), ("C", "3")])
    text = render({}, received, forwarded)
    assert text.endswith(
        "headers changed:\n  - A: 1\n  + B: 2\n  + C: 3\nheaders unchanged:\n    B: 2\n    a: 1"
    )


def test_a_broken_stream_has_no_speed() -> None:
    assert "tokens per second" not in render({**FACTS, "outcome": "client_left"}, RECEIVED, FORWARDED)


def test_the_report_on_a_refused_request_says_that_nothing_was_forwarded() -> None:
    facts = {"rule": "gw", "outcome": "refused", "status": 502, "refusal": 'credential "gw" is not there'}
    text = render(facts, RequestText("POST https://h.test/", [("Host", "h.test")]), None)
    assert (
        text
        == """\
rule: gw
outcome: refused, 502
refusal: credential "gw" is not there

received: POST https://h.test/
forwarded: nothing; answered locally

headers:
    Host: h.test"""
    )


def test_escape_sequences_in_headers_are_visible() -> None:
    assert "␛[2J" in render({}, RequestText("GET http://h.test/", [("x", "\x1b[2J")]), None)


def edits_shown(facts: dict[str, object]) -> list[str]:
    lines = render({**FACTS, "edits": ["remove a", "set b"], **facts}, RECEIVED, FORWARDED).splitlines()
    start = next(at for at, line in enumerate(lines) if line.startswith("body edits"))
    return lines[start : lines.index(next(line for line in lines if line.startswith("body: ")))]


def test_edits_without_effect_are_marked() -> None:
    assert edits_shown({"applied": ["set b", "edit anthropic_beta"]}) == [
        "body edits:", "  remove a: no effect here", "  set b", "  edit anthropic_beta",
    ]  # fmt: skip


def test_an_unchanged_body_has_no_effective_edits() -> None:
    facts = {name: value for name, value in FACTS.items() if name != "bytes_received"}
    lines = render({**facts, "edits": ["remove a"]}, RECEIVED, FORWARDED).splitlines()
    assert "  remove a: no effect here" in lines
    assert "body: 790 bytes, unchanged" in lines


def test_without_the_applied_edits_only_those_of_the_rule_are_listed() -> None:
    assert edits_shown({}) == ["body edits of the rule:", "  remove a", "  set b"]


def test_session_and_cost_are_shown() -> None:
    facts = {"session": "s1", "agent": "a1", "cost_usd": 0.0271, "cache_creation_long_tokens": 7}
    text = render(facts, RECEIVED, FORWARDED)
    assert "tokens: of them for longer 7\ncost: $0.0271\nsession: s1, agent a1" in text
    assert "cost: unknown for the tier flex" in render({"service_tier": "flex"}, RECEIVED, FORWARDED)
