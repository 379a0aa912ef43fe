"""The sums of a log."""

import json
from collections.abc import Iterable
from io import BytesIO
from pathlib import Path
from typing import Any

from mitm_gateway.observe.stats import MAX_ROWS, MAX_TIMES, OTHERS, By, Stats
from support.fixture_types import RunMain
from support.table import table


def entry(number: int) -> dict[str, Any]:
    return {
        "time": "2026-01-01T00:00:00.000+00:00",
        "rule": "copilot",
        "model": "claude-opus-4",
        "model_sent": "opus",
        "status": 200,
        "first_event_ms": float(number),
        "total_ms": number * 10.0,
        "input_tokens": 1000,
        "output_tokens": 10,
        "cache_read_tokens": 5,
        "cache_creation_tokens": 2,
        "cost_usd": 0.01,
        "session": f"s{number % 2}",
        "outcome": "ok",
    }


def stats_of(entries: Iterable[dict[str, Any]]) -> Stats:
    stats = Stats()
    for each in entries:
        stats.add(each)
    return stats


def test_the_table_has_a_row_for_each_rule_and_model() -> None:
    others: list[dict[str, Any]] = [
        {"rule": "copilot", "model": "haiku", "status": 529},
        {"rule": "copilot", "model": "haiku"},
        {"status": 404, "refusal": "no"},
        {"rule": "late", "status": 200, "refusal": "upstream: overloaded_error"},
        {"rule": "late", "status": 302, "hint": "the upstream redirects"},
        {"rule": "late", "status": 200},
    ]
    stats = stats_of([*map(entry, range(1, 101)), *others])
    assert [" ".join(line.split()) for line in stats.table()] == [
        "rule model requests errors in out cached written cost first p50 first p95 total p50 total p95",
        "copilot haiku 2 2 0 0 0 0 - - - - -",
        "copilot opus 100 0 100,000 1,000 500 200 $1.00 50 ms 95 ms 500 ms 950 ms",
        "late - 3 2 0 0 0 0 - - - - -",
        "no rule - 1 1 0 0 0 0 - - - - -",
        "total 106 5 100,000 1,000 500 200 $1.00 50 ms 95 ms 500 ms 950 ms",
    ]


def test_a_websocket_that_the_gateway_refuses_is_no_error() -> None:
    refused = {"rule": "a", "status": 426, "refusal": "use HTTP"}
    failed = {"rule": "a", "status": 426, "outcome": "upstream_error"}
    stats = stats_of([refused | {"outcome": "refused"}, refused, failed])
    assert stats.table("rule")[1].split()[:3] == ["a", "3", "1"]


@table(
    ("by", "rows"),
    [
        ("session", [["-", "1"], ["s0", "3"], ["s1", "3"]]),
        ("outcome", [["-", "1"], ["ok", "4"], ["refused", "2"]]),
        ("model", [["-", "1"], ["haiku", "2"], ["opus", "4"]]),
        ("rule", [["copilot", "4"], ["no", "rule"], ["other", "2"]]),
    ],
)
def test_rows_may_be_sessions_outcomes_models_or_rules(by: By, rows: list[list[str]]) -> None:
    others = {"rule": "other", "model_sent": "haiku", "outcome": "refused"}
    entries = [*map(entry, range(4)), *({**entry(number), **others} for number in range(2)), {"status": 404}]
    stats = stats_of(entries)
    title, *lines, total = (line.split() for line in stats.table(by))
    assert title[0] == by
    assert [line[:2] for line in lines] == rows
    assert total[:3] == ["total", "7", "3"]


def test_answers_that_no_vendor_served_have_no_cost() -> None:
    stats = stats_of({**entry(1), **more} for more in ({}, {"upstream": "demo"}, {"replayed": True}))
    assert stats.table("rule")[-1].split()[:8] == ["total", "3", "0", "2,000", "20", "10", "4", "$0.0100"]


def test_a_sum_that_lacks_the_cost_of_a_request_is_a_lower_bound() -> None:
    stats = stats_of([entry(1), {**entry(1), "cost_usd": None}])
    assert "≥$0.0100" in stats.table()[1].split()


@table("width", [46, 60, 76, 100, 120, 200])
def test_a_table_fits_the_width_that_there_is(width: int) -> None:
    long = {"model_sent": "us.anthropic.claude-opus-4-8-with-a-long-name", "rule": "r" * 60}
    lines = stats_of([{**entry(1), **long}]).table(width=width)
    assert max(map(len, lines)) <= width
    assert all(word in lines[0].split() for word in ("rule", "model", "requests", "cost"))


def test_invented_model_names_share_a_row() -> None:
    names = (f"{number}-\x1b\n{'x' * 10_000}" for number in range(2 * MAX_ROWS + 100))
    lines = stats_of({"rule": "r", "model": name, "status": 200} for name in names).table()
    assert all(map(str.isprintable, lines))
    assert len(lines) == 2 * MAX_ROWS + 3
    assert [line.split()[2] for line in lines if OTHERS in line] == ["100"]
    assert max(map(len, lines)) < 500


def test_sessions_beyond_the_limit_share_a_row() -> None:
    stats = stats_of({**entry(1), "session": f"s{number}"} for number in range(MAX_ROWS + 100))
    assert [line.split()[:2] for line in stats.table("session") if OTHERS in line] == [[OTHERS, "100"]]
    assert [line.split()[1] for line in stats.table("model")[1:]] == [f"{MAX_ROWS + 100:,}"] * 2


def test_percentiles_cover_the_latest_requests() -> None:
    times = [5.0] * MAX_TIMES + [7.0] * MAX_TIMES + [9.0] * (MAX_TIMES // 20 + 1)
    stats = stats_of({"rule": "r", "status": 200, "total_ms": time} for time in times)
    assert stats.table()[1].split()[-4:] == ["7", "ms", "9", "ms"]


def test_the_times_of_probes_are_not_those_of_answers() -> None:
    answer, probe = (
        {"method": method, "status": 200, "outcome": "ok", "first_event_ms": ms, "total_ms": ms}
        for method, ms in [("POST", 800), ("HEAD", 1)]
    )
    stats = stats_of([probe] * 3 + [answer])
    assert " ".join(stats.table("rule")[-1].split()) == "total 4 0 0 0 0 0 - 800 ms 800 ms 800 ms 800 ms"


def test_malformed_times_are_ignored() -> None:
    stats = Stats()
    for value in ("9" * 400, "-1", "NaN", "Infinity", "true", "[]", "3"):
        stats.add_lines(BytesIO(b'{"rule": "r", "status": 200, "total_ms": %s}' % value.encode()))
    assert stats.table()[1].split()[-4:] == ["3", "ms", "3", "ms"]


def test_an_empty_log_says_so() -> None:
    assert Stats().table() == ["no requests"]


def test_malformed_lines_are_counted() -> None:
    stats = Stats()
    stats.add_lines(BytesIO(b'{}\n\n[]\n{"rule": "a\n\xff\n{"status": "x", "total_ms": []}\n'))
    assert stats.unreadable == 3
    assert len(stats.table()) == 3


def test_the_command_totals_thousands_of_lines(tmp_path: Path, run_main: RunMain) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text("".join(json.dumps(entry(number % 1000)) + "\n" for number in range(5_000)))
    assert run_main("stats", log).out.splitlines()[-1].split()[:2] == ["total", "5,000"]
    assert [line.split()[:2] for line in run_main("stats", "--by", "session", log).out.splitlines()[1:]] == [
        ["s0", "2,500"], ["s1", "2,500"], ["total", "5,000"],
    ]  # fmt: skip


def test_a_log_is_priced_again_by_a_file(tmp_path: Path, run_main: RunMain) -> None:
    log, prices = tmp_path / "log.jsonl", tmp_path / "prices.yaml"
    log.write_text(json.dumps(entry(1)))
    prices.write_text("models: {opus: {input: 1000, output: 0, cache_read: 0, cache_write: 0}}")
    assert "$1.00" in run_main("stats", "--prices", prices, log).out
    prices.write_text("models: {opus: {input: cheap, output: 0}}")
    told = run_main("stats", "--prices", prices, log, status=1).err
    assert 'prices.yaml:1:24: "input" is text; expected US dollars' in told
