"""Files that are no rules, logs or recordings, or that somebody else has written: a clear error, within bounds."""

import json
import math
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from mitmproxy.addons.serverplayback import ServerPlayback
from mitmproxy.io import tnetstring
from mitmproxy.test import taddons

from mitm_gateway.cli import main
from mitm_gateway.mitm import recording_file
from mitm_gateway.mitm.recorder import FACTS
from mitm_gateway.mitm.replay import ORIGINAL
from mitm_gateway.mitm.server_replay import ServerReplay
from mitm_gateway.observe import stats
from mitm_gateway.recordings import har_entries
from support.fixture_types import RunMain
from support.recordings import talked, turn, write

_ACTS_ON_A_TERMINAL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]")
ESCAPES = "a\x1b]0;hit\x07\u202e\x9b31m.yaml"
REQUEST = ["POST", "https://api.anthropic.com/v1/messages"]
COMMANDS = (
    ["check"], ["flows"], ["stats"], ["stats", "rules.yaml", "--prices"], ["env", "--rules"], ["doctor", "--rules"],
    ["explain", *REQUEST, "--rules"], ["export", "envoy", "--rules"], ["serve", "--rules"],
    ["token", "oauth2", "--token-url=https://127.0.0.1:1/", "--client-id=a", "--secret-file"],
)  # fmt: skip


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "rules.yaml").touch(mode=0o600)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_pipe_a_device_and_a_loop_of_links_are_errors_at_once(
    command: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(folder / "fifo")
    (folder / "loop").symlink_to("loop")
    for name in ("fifo", "loop", "/dev/zero", "/proc/kmsg"):
        if command == ["stats"] and name in ("fifo", "/proc/kmsg"):
            continue  # a log may come from another program
        assert main([*command, name]) in (1, 2), name
        assert name in "".join(capsys.readouterr())


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_the_name_of_a_file_acts_on_no_terminal(
    command: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = ESCAPES if command != ["stats"] else "nowhere" + ESCAPES
    for each in (name, os.fsdecode(b"\xff.yaml")):
        (folder / each.removeprefix("nowhere")).write_text("version: 1\nrules: 3\n")
        assert main([*command, each]) in (0, 1, 2)
        printed = capsys.readouterr()
        text = (printed.out + printed.err).encode(sys.stdout.encoding).decode()
        assert not _ACTS_ON_A_TERMINAL.search(text), text


def log(folder: Path, *lines: bytes) -> str:
    path = folder / "log.jsonl"
    path.write_bytes(b"\n".join([*lines, b""]))
    return str(path)


def test_numbers_of_any_size_in_a_log_are_left_out(folder: Path, run_main: RunMain) -> None:
    huge = b"9" * 4300
    many = [
        b'{"rule": "a", "model": "claude-opus-4-8", "%s": %s}' % (key, value)
        for key in (b"input_tokens", b"output_tokens", b"cost_usd", b"total_ms", b"status")
        for value in (huge, huge, b"1e999", b"NaN", b"-5", b"true", b'"x"', b"[[]]", b"{}")
    ]
    assert "total  " in run_main("stats", log(folder, *many)).out


def test_the_memory_for_a_log_is_bounded(
    folder: Path, run_main: RunMain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stats, "MAX_LINE", 4096)
    lines = (b"x" * 10_000, b'{"rule": "a"}', b'{"a": [' + b"[]," * 200_000 + b"[]]}")
    printed = run_main("stats", log(folder, *lines))
    assert printed.out.split("\n")[-2].split()[1] == "1"
    assert printed.err == "mitm-gateway: 2 lines are no entries of a gateway_log\n"


def pair(data: bytes, kind: bytes) -> bytes:
    return b"%d:%s%s" % (len(data), data, kind)


def recording(folder: Path, content: bytes) -> str:
    path = folder / "recording"
    path.write_bytes(content)
    return str(path)


def test_a_flow_of_many_values_is_damaged(
    folder: Path, run_main: RunMain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording_file, "MAX_RECORDED_VALUES", 1000)
    for values in (b"0:]" * 1001, b"0:~" * 1001, b"-1:x]", b"9:x]"):
        flow = pair(pair(b"a", b";") + pair(values, b"]"), b"}")
        told = run_main("flows", recording(folder, flow), status=1).err
        assert "flow 1 is damaged; expected a file that" in told


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b'{"log": {"entries": [' + b"[" * 1000, "brackets that do not match, or more than 500"),
        (b'{"log": {"entries": [{"a": ' + b'{"a":' * 1000, "brackets that do not match, or more than 500"),
        (b'{"log": {"entries": []}}' + b"}" * 1000, "brackets that do not match, or more than 500"),
        (b'{"log": {"entries": [{"a": [' + b"[]," * 1000, "millions of values in one entry"),
    ],
)
def test_a_har_file_of_brackets_is_refused_early(
    text: bytes, told: str, folder: Path, run_main: RunMain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(har_entries, "MAX_MARKS", 1900)
    assert told in run_main("flows", recording(folder, text), status=1).err


def test_remarks_about_a_recording_are_few(folder: Path, run_main: RunMain) -> None:
    for count, status in ((999, 0), (5000, 1)):
        har = recording(folder, b'{"log": {"entries": [' + b"{}," * count + b"{}]}}")
        remarks = run_main("flows", har, status=status).err.splitlines()
        assert len(remarks) == 21 + status
        assert remarks[20].endswith("further parts are left out, too")


@pytest.mark.parametrize(
    "version", [pair(b"9", b","), pair(b"9", b";"), pair(pair(b"9", b","), b"]"), b"0:~"]
)
def test_a_format_is_a_number(version: bytes, folder: Path, run_main: RunMain) -> None:
    flow = pair(pair(b"version", b";") + version, b"}")
    told = run_main("flows", recording(folder, flow), status=1).err
    assert "flow 1 is damaged: its format is no number" in told


@pytest.mark.parametrize("how", ["", "--jsonl", "--html out.html"])
def test_a_request_at_no_time_of_a_clock_is_left_out(how: str, folder: Path, run_main: RunMain) -> None:
    flows = [talked(turn("a")) for _ in range(6)]
    for flow, time in zip(flows, (math.inf, math.nan, -1e18), strict=False):
        flow.request.timestamp_start = time
    for flow, time in zip(flows[3:], (math.inf, math.nan), strict=False):
        assert flow.response is not None
        flow.response.timestamp_end = time
    told = run_main("flows", write(folder / "r", flows), *how.split()).err
    assert told.count("has invalid values") == 5


HOSTILE_FACTS: tuple[dict[str, Any], ...] = (
    {"input_tokens": int("9" * 400), "output_tokens": -1, "cost_usd": int("9" * 400), "fresh_tokens": "x"},
    {
        "model": 5,
        "session": [],
        "agent": {},
        "outcome": [1],
        "hint": {"a": []},
        "rule": "\x1b]0;hit\x07\u202e",
    },
    {"model": "\x1b[2J", "upstream": "\x9b31m", "status": "x", "edits": [1], "notes": 5, "bytes_in": "x"},
)


@pytest.mark.parametrize("facts", HOSTILE_FACTS, ids=["numbers", "types", "escapes"])
@pytest.mark.parametrize("how", ["", "--show 1", "--jsonl", "--session", "--diff 1 2", "--html out.html"])
def test_facts_that_somebody_else_wrote_are_shown_harmlessly(
    facts: dict[str, Any], how: str, folder: Path, run_main: RunMain
) -> None:
    flows = [talked(turn("a")), talked(turn("a", "b"))]
    for flow in flows:
        flow.metadata[FACTS] = facts
    printed = run_main("flows", str(write(folder / "r", flows)), *how.split())
    assert not _ACTS_ON_A_TERMINAL.search(printed.out + printed.err)


@pytest.mark.parametrize(
    "original",
    [{}, {"port": "x"}, {"headers": 5}, {"headers": [[1, 2]]}, {"target": "text"}, {"host": None}, 5],
)
def test_an_original_request_that_somebody_else_wrote_stops_no_replay(original: Any, folder: Path) -> None:
    known = {"scheme": "https", "host": "a.test", "port": 443, "target": b"/", "authority": "", "headers": []}
    flows = [talked(turn("a")), talked(turn("b"))]
    flows[0].metadata[ORIGINAL] = (
        {**known, **original} if original and isinstance(original, dict) else original
    )
    with taddons.context(ServerPlayback()) as context:
        context.options.update(server_replay=[str(write(folder / "r", flows))])
        found = ServerReplay.read(context.options)
    assert len(found.replies) + found.incomplete == 2
    assert len(found.replies) >= 1


def test_a_page_is_written_as_a_whole_and_private(
    folder: Path, monkeypatch: pytest.MonkeyPatch, run_main: RunMain, capsys: pytest.CaptureFixture[str]
) -> None:
    good, out, other = write(folder / "r", [talked(turn("a"))]), folder / "out.html", folder / "other"
    run_main("flows", good, "--html", out)
    whole = out.read_bytes()
    out.chmod(0o644)
    run_main("flows", folder / "nowhere", "--html", out, status=1)
    assert out.read_bytes() == whole
    other.symlink_to(folder / "target")
    for place in (out, other):
        run_main("flows", good, "--html", place)
        assert place.stat().st_mode & 0o777 == 0o600
        assert not (folder / "target").exists()
    os.mkfifo(folder / "fifo")
    for place in (folder / "fifo", folder, good):
        run_main("flows", good, "--html", place, status=2)
    assert {each.name for each in folder.iterdir()} == {"r", "out.html", "other", "fifo", "rules.yaml"}
    capsys.readouterr()
    told = run_main("flows", good, "--html", "nowhere/out.html", status=1).err
    assert told == "mitm-gateway: nowhere/out.html: No such file or directory\n"


def test_a_state_of_mitmproxy_is_read_like_mitmproxy_reads_it() -> None:
    state = talked(turn("a")).get_state()
    data = tnetstring.dumps(state)
    start = data.index(b":") + 1
    read = recording_file._Values().mapping(memoryview(data)[start:-1])
    assert read == tnetstring.loads(data)
    assert json.dumps(read, default=repr) == json.dumps(tnetstring.loads(data), default=repr)
