"""The record of a handled request."""

from dataclasses import replace
from typing import Any

from mitm_gateway.exchange.comment import comment_of, short_model
from mitm_gateway.exchange.plan import Plan, decide
from mitm_gateway.exchange.record import REPLAYED, Record
from mitm_gateway.exchange.report import Report
from mitm_gateway.llm.usage import Usage
from mitm_gateway.wire.request import Arrival
from support.builders import BEARER, make_head, make_rule, make_ruleset
from support.table import table

HEAD = make_head("/v1/messages?key=CK", {"x-api-key": "CLIENT-KEY-0123456789abcdef"})
RULE = make_rule("copilot", upstream="https://h.test/a", auth=BEARER)


def planned() -> Record:
    plan = decide(make_ruleset(RULE), HEAD, Arrival())
    assert isinstance(plan, Plan)
    record = Record(0.0)
    record.note_head(HEAD)
    record.note_plan(plan, HEAD)
    return record


def test_the_log_marks_an_answer_from_a_recording() -> None:
    assert "replayed" not in Report.of(planned()).log_entry()
    assert Report.of(replace(planned(), notes=(REPLAYED,))).log_entry()["replayed"] is True


def test_the_comment_is_one_line_of_what_happened() -> None:
    usage = Usage(input_tokens=812, output_tokens=96)
    record = replace(
        planned(),
        model="claude-opus-4-8",
        model_sent="claude-opus-4.6",
        status=200,
        total_s=1.23,
        usage=usage,
    )
    assert comment_of(Report.of(record)) == (
        "opus-4-8 812→96 → claude-opus-4.6, copilot: x-api-key → bearer, 200, 1.2 s"
    )


def test_a_good_row_shows_prompt_cache_and_cost() -> None:
    usage = Usage("claude-opus-4-8", 4, 87, cache_read_tokens=30_000, cache_creation_tokens=1_596)
    record = replace(planned(), status=200, total_s=0.5, usage=usage, cost_usd=0.0271)
    assert comment_of(Report.of(record)) == (
        "opus-4-8 31.6k→87, copilot: x-api-key → bearer, 200, 500 ms, 94 % cached, $0.0271"
    )
    # These APIs count the tokens in the cache as input.
    record.path = "/v1/responses"
    assert comment_of(Report.of(record)).startswith("opus-4-8 4→87, ")


@table(
    ("changes", "comment"),
    [
        (
            {"status": 404, "hint": "add it", "usage": Usage(error="not_found_error")},
            "404: not_found_error; add it, ",
        ),
        ({"status": 529}, "529, "),
        ({"status": 200, "usage": Usage(error="overloaded_error")}, "200: overloaded_error, "),
        ({"error": "server closed connection"}, "server closed connection, "),
        ({"status": 200, "error": "gone", "ending": "client_left"}, "client left, 200: gone, "),
        ({"status": 200, "error": "silent", "ending": "timed_out"}, "timed out, 200: silent, "),
        ({"status": 200, "error": "cut", "ending": "broke_off"}, "broke off, 200: cut, "),
    ],
)
def test_a_failed_row_begins_with_the_cause(changes: dict[str, Any], comment: str) -> None:
    record = replace(planned(), model="m", model_sent="m", total_s=0.1, **changes)
    assert comment_of(Report.of(record)) == f"{comment}copilot: x-api-key → bearer, m, 100 ms"


@table(
    ("name", "short"),
    [
        ("claude-opus-4-8", "opus-4-8"),
        ("claude-haiku-4-5-20251001", "haiku-4-5"),
        ("claude-haiku-4-5@20251001", "haiku-4-5"),
        ("anthropic/claude-opus-4.6", "opus-4.6"),
        ("us.anthropic.claude-opus-4-8-v1:0", "opus-4-8"),
        ("arn:aws:bedrock:us-east-1:1:inference-profile/us-gov.anthropic.claude-sonnet-5", "sonnet-5"),
        ("models/gemini-2.5-pro", "gemini-2.5-pro"),
        ("gpt-5.4-2026-03-05", "gpt-5.4"),
        ("deepseek-v4", "deepseek-v4"),
        ("llama3.1", "llama3.1"),
        ("claude-", "claude-"),
        ("claude-3-5-sonnet-20241022", "3-5-sonnet"),
        ("claude-x", "claude-x"),
    ],
)
def test_a_model_has_a_short_name(name: str, short: str) -> None:
    assert short_model(name) == short


def test_a_body_names_the_session_where_no_header_does() -> None:
    record = Record(0.0, session="other")
    record.note_head(make_head("/v1/messages", {}))
    assert record.session == "other"
    record.note_head(make_head("/v1/messages", {"session_id": "s"}))
    assert record.session == "s"


def test_a_refusal_is_reported_with_its_reason() -> None:
    record = replace(planned(), status=502, refusal='credential "gw" is not there')
    comment = comment_of(Report.of(record))
    assert comment == 'refused with 502: credential "gw" is not there, copilot: x-api-key → bearer'


def test_the_log_entry_leaves_out_empty_values() -> None:
    record = replace(planned(), status=200, total_s=0.0123, bytes_in=5)
    assert Report.of(record).log_entry() == {
        "time": "1970-01-01T00:00:00.000+00:00",
        "rule": "copilot",
        "method": "POST",
        "host": "api.anthropic.com",
        "path": "/v1/messages",
        "upstream": "https://h.test/a",
        "status": 200,
        "total_ms": 12.3,
        "bytes_in": 5,
        "outcome": "ok",
    }


@table(
    ("changes", "outcome"),
    [
        ({"status": 200}, "ok"),
        ({"status": 200, "usage": Usage("m", is_stream=True, stop_reason="end_turn")}, "ok"),
        ({"status": 200, "usage": Usage("m", is_stream=True)}, "upstream_broke_off"),
        ({"status": 200, "error": "x", "ending": "broke_off"}, "upstream_broke_off"),
        ({"status": 200, "error": "x", "ending": "client_left"}, "client_left"),
        ({"status": 200, "error": "x", "ending": "timed_out"}, "timed_out"),
        ({"error": "x", "ending": "broke_off"}, "upstream_error"),
        ({"status": 529}, "upstream_error"),
        ({"status": 302, "hint": "the upstream redirects"}, "upstream_error"),
        ({"status": 502, "refusal": "x"}, "refused"),
    ],
)
def test_a_report_names_the_outcome(changes: dict[str, Any], outcome: str) -> None:
    report = Report.of(replace(planned(), **changes))
    assert report.outcome == outcome
    assert outcome != "client_left" or "refusal" not in report.log_entry()


@table(
    ("changes", "reason"),
    [
        ({"status": 200, "usage": Usage(error="overloaded_error")}, "overloaded_error"),
        ({"status": 200, "error": "server closed connection"}, "server closed connection"),
        ({"error": "server closed connection"}, "server closed connection"),
    ],
)
def test_the_log_tells_an_upstream_that_fails_behind_its_status(changes: dict[str, Any], reason: str) -> None:
    record = replace(planned(), total_s=0.1, **changes)
    assert Report.of(record).outcome == "upstream_error"
    assert Report.of(record).log_entry()["refusal"] == f"upstream: {reason}"
    facts = (report := Report.of(record)).facts(report.log_entry())
    assert (facts.get("refusal"), facts["error"]) == (None, reason)


HOSTILE = "\x1b]0;owned\x07\nforged line\x9b\u202e\ud800" + "m" * 1_000_000


def test_text_of_peers_is_printable_and_short_in_comment_and_log() -> None:
    record = replace(planned(), model=HOSTILE, model_sent=HOSTILE + "x", error=HOSTILE[:40], status=200)
    record.method = HOSTILE
    failed = replace(record, total_s=1.0)
    assert "forged line" in comment_of(Report.of(failed)).partition(",")[2]
    comments = [comment_of(Report.of(each)) for each in (record, failed)]
    for text in (*comments, *Report.of(record).log_entry().values()):
        shown = str(text)
        shown.encode()
        assert shown.isprintable()
        assert len(shown) < 1000


def test_the_log_entry_names_the_session_and_the_agent() -> None:
    record = Record(0.0)
    record.note_head(make_head("/v1/messages", {"session_id": "3f2a", "x-claude-code-agent-id": "a1" * 300}))
    entry = Report.of(record).log_entry()
    assert entry["session"] == "3f2a"
    assert entry["agent"] == f"{'a1' * 127}a…"


@table("name", ["path", "model", "model_sent", "session", "agent", "refusal", "error", "hint"])
def test_what_looks_like_a_key_is_masked_in_every_text_of_a_peer(name: str) -> None:
    record = Record(0.0)
    setattr(record, name, "sk-ant-api03-abcdef0123456789abcdef")
    record.hide(())
    assert getattr(record, name) == "****cdef"


def test_the_log_entry_counts_the_tokens_written_to_the_cache() -> None:
    record = replace(planned(), status=200, usage=Usage(cache_creation_tokens=7))
    assert Report.of(record).log_entry()["cache_creation_tokens"] == 7
