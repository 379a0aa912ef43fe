"""The sums of a log."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mitm_gateway.cli import main
from mitm_gateway.observe.stats import MAX_ROWS, MAX_TIMES, OTHERS, Stats


def entry(number: int) -> dict[str, object]:
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
    }


def test_the_table_has_a_row_for_each_rule_and_model() -> None:
    stats = Stats()
    for number in range(1, 101):
        stats.add(entry(number))
    stats.add({"rule": "copilot", "model": "haiku", "status": 529})
    stats.add({"rule": "copilot", "model": "haiku"})
    stats.add({"status": 404, "refusal": "no"})
    stats.add({"rule": "late", "status": 200, "refusal": "upstream: overloaded_error"})
    stats.add({"rule": "late", "status": 302, "hint": "the upstream redirects"})
    stats.add({"rule": "late", "status": 200})
    assert [line.split("  ") and " ".join(line.split()) for line in stats.table()] == [
        "rule model requests errors in out cached first p50 first p95 total p50 total p95",
        "copilot haiku 2 2 0 0 0 - - - -",
        "copilot opus 100 0 100,000 1,000 500 50 ms 95 ms 500 ms 950 ms",
        "late - 3 2 0 0 0 - - - -",
        "no rule - 1 1 0 0 0 - - - -",
    ]


def test_invented_model_names_share_a_row() -> None:
    stats = Stats()
    for number in range(MAX_ROWS + 100):
        stats.add({"rule": "r", "model": f"{number}-{'x' * 10_000}", "status": 200})
    lines = stats.table()
    assert len(lines) == MAX_ROWS + 2
    assert [line.split()[2] for line in lines if OTHERS in line] == ["100"]
    assert max(map(len, lines)) < 500


def test_percentiles_cover_the_latest_requests() -> None:
    stats = Stats()
    for number in [5.0] * MAX_TIMES + [7.0] * MAX_TIMES + [9.0] * (MAX_TIMES // 20 + 1):
        stats.add({"rule": "r", "status": 200, "total_ms": number})
    assert stats.table()[1].split()[-4:] == ["7", "ms", "9", "ms"]


def test_malformed_times_are_ignored() -> None:
    stats = Stats()
    for value in (10**400, -1, float("nan"), float("inf"), 3):
        stats.add({"rule": "r", "status": 200, "total_ms": value})
    assert stats.table()[1].split()[-4:] == ["3", "ms", "3", "ms"]


def test_an_empty_log_says_so() -> None:
    assert Stats().table() == ["no requests"]


def test_malformed_lines_are_counted() -> None:
    stats = Stats()
    stats.add_lines(
        [b"{}\n", b"\n", b"[]\n", b'{"rule": "a', b"\xff\n", b'{"status": "x", "total_ms": []}\n']
    )
    assert stats.unreadable == 3
    assert len(stats.table()) == 2


def test_the_command_totals_thousands_of_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text("".join(json.dumps(entry(number % 1000)) + "\n" for number in range(5_000)))
    assert main(["stats", str(log)]) == 0
    assert "5,000" in capsys.readouterr().out


def test_a_missing_log_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stats", str(tmp_path / "no.jsonl")]) == 1
    assert capsys.readouterr().err.endswith("no.jsonl: No such file or directory\n")
