"""The end of `run`: its report about the session."""

import json
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from mitm_gateway.cli import session_report as module
from mitm_gateway.cli.gateway_process import GatewayProcess, fault_in
from mitm_gateway.cli.session_report import LoggedRequests, SessionReport
from mitm_gateway.clients import catalogue
from mitm_gateway.clients.environment import Changes
from support.table import table

SOCKET = {"status": 426, "refusal": "messages of a WebSocket are not edited; use HTTP"}
GOOD: dict[str, object] = {"status": 200, "outcome": "ok"}
KEY = {"status": 424, "refusal": "the credential is not set"}


class Quiet:
    """A gateway without connections."""

    def has_connections(self) -> bool:
        return False


class Looks:
    """The end of a client after this number of looks."""

    def __init__(self, number: int) -> None:
        self.left = number

    def wait(self, _timeout: float) -> bool:
        self.left -= 1
        return self.left < 0


def report(
    tmp_path: Path, *entries: dict[str, object], client: str = "codex", intercepts: bool = False
) -> SessionReport:
    log = LoggedRequests(tmp_path / "requests.jsonl")
    log.file.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    known, _ = catalogue.of_command([client])
    return SessionReport(client, log, known, Changes({}, ()), intercepts=intercepts, log=tmp_path / "log")


Summary = Callable[..., str]


@pytest.fixture
def summary(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Summary:
    """Return what is printed at the end about these requests."""

    def printed(*entries: dict[str, object], has_connected: bool = False, **options: Any) -> str:
        report(tmp_path, *entries, **options).print_summary(has_connected=has_connected)
        return capsys.readouterr().err

    return printed


def test_a_socket_whose_client_continues_over_http_is_no_failure(summary: Summary) -> None:
    assert summary(SOCKET, {"status": 200}) == ""


def test_a_socket_without_a_request_over_http_is_reported(summary: Summary) -> None:
    assert "1 of 1 requests failed, most often: messages of a WebSocket" in summary(SOCKET)


def test_other_refusals_are_counted_beside_a_socket(summary: Summary) -> None:
    text = summary(SOCKET, KEY, {"status": 200})
    assert "1 of 3 requests failed, most often: the credential is not set" in text


@pytest.mark.parametrize(
    ("outcome", "status", "reason"),
    [
        ("upstream_error", 529, "the upstream answered with 529"),
        ("upstream_broke_off", 200, "the upstream's response broke off"),
        ("timed_out", 502, "the upstream did not answer in time"),
    ],
)
def test_a_session_that_ends_in_a_failure_of_the_upstream_says_so(
    summary: Summary, outcome: str, status: int, reason: str
) -> None:
    bad: dict[str, object] = {"status": status, "outcome": outcome}
    assert f"2 of 3 requests failed, most often: {reason}; see " in summary(GOOD, bad, bad)


def test_a_failure_that_the_client_got_over_is_not_reported(summary: Summary) -> None:
    assert summary({"status": 529, "outcome": "upstream_error"}, GOOD) == ""


@pytest.mark.parametrize("is_terminal", [False, True])
def test_the_hint_of_a_first_request_is_printed_while_the_client_tries_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, is_terminal: bool
) -> None:
    monkeypatch.setattr(module, "_LOOK_S", 0.001)
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: is_terminal))
    session = report(
        tmp_path, {"status": 401, "hint": "try auth.scheme: bearer"}, {"status": 401, "hint": "b"}
    )
    session._watch(cast(GatewayProcess, Quiet()), threading.Event())
    assert capsys.readouterr().err == ("" if is_terminal else "mitm-gateway: hint: try auth.scheme: bearer\n")


def test_a_client_whose_first_request_succeeds_is_no_longer_watched(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LOOK_S", 0.001)
    report(tmp_path, {"status": 200})._watch(cast(GatewayProcess, Quiet()), threading.Event())
    assert capsys.readouterr().err == ""


def test_a_client_without_a_request_for_half_a_minute_is_reported_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LOOK_S", 0.0)
    session, ended = report(tmp_path), Looks(100)
    session._watch(cast(GatewayProcess, Quiet()), cast(threading.Event, ended))
    assert capsys.readouterr().err.count("no request has reached the gateway so far. ") == 1


@table("name", ["claude", "codex", "gemini", "opencode", "copilot", "aider", "llm", "pi", "other"])
@table("intercepts", [False, True])
def test_a_client_that_asks_nothing_is_reported_with_the_way_out(
    summary: Summary, name: str, intercepts: bool
) -> None:
    said = f"mitm-gateway: {name} ended without a request through the gateway. "
    assert len(summary(client=name, intercepts=intercepts).partition(said)[2]) > 30


@table("name", ["claude", "other"])
def test_a_client_that_connects_for_other_hosts_only_does_not_ignore_the_proxy(
    summary: Summary, name: str
) -> None:
    said = summary(client=name, intercepts=True, has_connected=True)
    assert said.startswith(f"mitm-gateway: {name} connected to the gateway, but no rule took a request. ")
    assert "HTTPS_PROXY" not in said


def test_a_failed_start_is_told_by_its_reason_alone() -> None:
    listening = "[22:04:01.002] reverse proxy to https://api.anthropic.com listening at 127.0.0.1:4001.\n"
    end = "Error logged during startup, exiting...\n"
    reason = "gateway_clients: nowhere: the file does not exist"
    assert fault_in(f"[22:04:01.001] {reason}\n{listening}{end}") == reason
    assert fault_in(f"{listening}{end}") == f"{listening}{end}".strip()
