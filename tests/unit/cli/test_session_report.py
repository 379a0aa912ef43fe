"""The end of `run`: its report about the session."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mitm_gateway.cli.session_report import Requests, SessionReport
from mitm_gateway.clients import catalogue
from mitm_gateway.clients.environment import Changes

SOCKET = {"status": 426, "refusal": "messages of a WebSocket are not edited; use HTTP"}
KEY = {"status": 424, "refusal": "the credential is not set"}


def summary(tmp_path: Path, capsys: pytest.CaptureFixture[str], *entries: dict[str, object]) -> str:
    log = Requests(tmp_path / "requests.jsonl")
    log.file.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    SessionReport(
        "codex", log, catalogue.load("codex"), Changes({}, ()), intercepts=False, log=tmp_path / "log"
    ).print_summary()
    return capsys.readouterr().err


def test_a_socket_whose_client_goes_on_over_http_is_no_failure(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert summary(tmp_path, capsys, SOCKET, {"status": 200}) == ""


def test_a_socket_without_a_request_over_http_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "1 of 1 requests failed, most often: messages of a WebSocket" in summary(tmp_path, capsys, SOCKET)


def test_other_refusals_are_counted_beside_a_socket(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = summary(tmp_path, capsys, SOCKET, KEY, {"status": 200})
    assert "1 of 3 requests failed, most often: the credential is not set" in text
