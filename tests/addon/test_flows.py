"""`mitm-gateway flows` over recordings, in the process of the test."""

import base64
import json
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mitmproxy import http, version
from mitmproxy.flow import Error
from mitmproxy.io import tnetstring
from mitmproxy.test import tflow

from mitm_gateway.mitm import recorded_flows, recording_file
from mitm_gateway.recordings.recorded import Recorded
from support.fixture_types import RunMain
from support.recordings import SYSTEM, TOOL, talked, turn, write, write_har

FIRST, SECOND = turn("hi"), turn("hi", "hello there", "read it")


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    return write(tmp_path / "talk.mitm", [talked(FIRST), talked(SECOND)])


@pytest.fixture
def unnamed(tmp_path: Path) -> Path:
    """Two sessions that no client names, the first one with requests 1 and 3."""
    return write(
        tmp_path / "talk.mitm", [talked(body, headers=[]) for body in (FIRST, turn("other"), SECOND)]
    )


def test_the_list_has_a_line_for_each_request(recording: Path, run_main: RunMain) -> None:
    heading, first, second = run_main("flows", recording).out.splitlines()
    assert heading.split()[:3] == ["#", "time", "session"]
    assert first.split()[3:5] == ["3f2a91c0", "claude-opus-4-8"]
    assert first.split()[-3:] == ["$0.0002", "200", "ok"]
    assert second.split()[0] == "2"


def test_a_har_file_gives_the_same_list(recording: Path, tmp_path: Path, run_main: RunMain) -> None:
    expected = run_main("flows", recording).out.splitlines()
    har = write_har(tmp_path / "talk.har", [talked(FIRST), talked(SECOND)])
    assert [line.split()[3:] for line in run_main("flows", har).out.splitlines()] == [
        line.split()[3:] for line in expected
    ]


def test_a_request_is_shown_whole(recording: Path, run_main: RunMain) -> None:
    shown = run_main("flows", recording, "--show", "2").out
    for text in (SYSTEM, TOOL["name"], TOOL["description"], "read it", "==== answer ====", "hello"):
        assert text in shown


@pytest.mark.parametrize(("columns", "longest"), [(None, None), ("60", 60), ("300", 100)])
def test_lines_are_wrapped_on_a_terminal_only(
    columns: str | None,
    longest: int | None,
    tmp_path: Path,
    run_main: RunMain,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = write(tmp_path / "talk.mitm", [talked(turn("word " * 100))])
    if columns:
        monkeypatch.setenv("COLUMNS", columns)
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    _, conversation = run_main("flows", path, "--show", "1").out.split("==== request ====")
    widest = max(map(len, conversation.splitlines()))
    assert widest > 490 if longest is None else longest - 6 < widest <= longest


def test_a_number_that_is_not_there_is_wrong_usage(recording: Path, run_main: RunMain) -> None:
    seen = run_main("flows", recording, "--show", "3", status=2)
    assert seen.err == "mitm-gateway: there is no request 3; expected a number from 1 to 2\n"


def test_a_number_of_another_session_names_those_of_the_session(unnamed: Path, run_main: RunMain) -> None:
    for session, number, expected in (
        ("unnamed-1", "2", "request 2 is not in session unnamed-1…; it has requests 1, 3"),
        ("unnamed-2", "1", "request 1 is not in session unnamed-2…; it has request 2"),
        ("x", "1", 'no session begins with "x"; `flows FILE --session` lists the sessions'),
    ):
        seen = run_main("flows", unnamed, "--session", session, "--show", number, status=2)
        assert seen.err == f"mitm-gateway: {expected}\n"


def test_json_lines_contain_the_data_of_each_request(recording: Path, run_main: RunMain) -> None:
    first, second = map(json.loads, run_main("flows", recording, "--jsonl").out.splitlines())
    assert (first["number"], second["number"]) == (1, 2)
    assert second["request"]["body"]["messages"][-1] == {"role": "user", "content": "read it"}
    assert second["response"]["body"]["content"][0]["type"] == "text"
    assert (second["model"], second["outcome"]) == ("claude-opus-4-8", "ok")


def test_the_list_names_the_cost_and_a_session_that_no_client_names(unnamed: Path, run_main: RunMain) -> None:
    def rows(*words: str) -> list[list[str]]:
        return [line.split() for line in run_main("flows", unnamed, *words).out.splitlines()[1:]]

    assert [row[3] for row in rows()] == ["unnamed-"] * 3
    assert all(row[-3].startswith("$0.00") for row in rows())
    assert [row[:2] for row in rows("--session")] == [["unnamed-1", "2"], ["unnamed-2", "1"]]
    assert [row[0] for row in rows("--session", "unnamed-1")] == ["1", "3"]


def test_a_difference_is_described_in_words(tmp_path: Path, run_main: RunMain) -> None:
    path = write(tmp_path / "talk.mitm", [talked(FIRST), talked(SECOND), talked(turn("hi", tools=[]))])
    first, second, *words = run_main("flows", path, "--diff", "1", "2").out.splitlines()
    assert first.startswith("1. ")
    assert second.startswith("2. ")
    assert words == [
        "same up to message 1, two messages new",
        "cache: 0 tokens read (0 % of the prompt), 0 written, 11 fresh; cost $0.0002",
    ]
    assert run_main("flows", path, "--diff", "1", "3").out.splitlines()[2:5] == [
        "tools changed: `Read` gone",
        "same messages (1)",
        "the cache can serve nothing: the tools changed, and the prompt begins with them",
    ]
    run_main("flows", path, "--diff", "1", "9", status=2)


def test_a_page_is_written_for_its_owner_alone_and_links_to_sections_of_earlier_requests(
    recording: Path, tmp_path: Path, run_main: RunMain
) -> None:
    page = tmp_path / "talk.html"
    for _ in range(2):  # the second one overwrites the first
        seen = run_main("flows", recording, "--html", page)
        assert seen.err.splitlines()[-1] == f"mitm-gateway: {page}: written"
    text = page.read_text()
    assert text.count(SYSTEM) == text.count(TOOL["description"]) == 1
    assert ": as in request 1</p>" in text
    assert "read it" in text
    assert page.stat().st_mode & 0o777 == 0o600


def test_a_page_overwrites_no_other_file(recording: Path, run_main: RunMain) -> None:
    before = recording.read_bytes()
    assert "the file exists" in run_main("flows", recording, "--html", recording, status=2).err
    assert recording.read_bytes() == before


def test_a_page_of_a_cut_recording_ends_with_the_reason(
    run_main: RunMain, recording: Path, tmp_path: Path
) -> None:
    recording.write_bytes(recording.read_bytes()[:-100])
    page = tmp_path / "talk.html"
    run_main("flows", recording, "--html", page, status=1)
    text = page.read_text()
    assert text.count("<article") == 1
    assert "cut off inside flow 2" in text
    assert text.endswith("</html>\n")


@pytest.mark.parametrize("mode", [[], ["--jsonl"], ["--html", "OUT"]])
def test_few_requests_are_in_memory_at_a_time(
    run_main: RunMain, mode: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[weakref.ref[object]] = []
    alive: list[int] = []

    as_recorded = recorded_flows.as_recorded

    def noted(flow: http.HTTPFlow, *more: Any) -> Recorded:
        found = as_recorded(flow, *more)
        seen.extend([weakref.ref(flow), weakref.ref(found)])
        alive.append(sum(each() is not None for each in seen))
        return found

    monkeypatch.setattr(recorded_flows, "as_recorded", noted)
    # Flows are parts of cycles, so what has been read is counted.
    monkeypatch.setattr(recording_file, "COLLECT_AFTER", 100_000)
    path = write(tmp_path / "talk.mitm", (talked(turn("word " * 10_000)) for _ in range(30)))
    run_main("flows", path, *(tmp_path / "out.html" if word == "OUT" else word for word in mode))
    assert len(alive) == 30
    assert max(alive) <= 10


def test_no_output_acts_on_a_terminal(tmp_path: Path, run_main: RunMain) -> None:
    said = "".join(map(chr, (*range(0x20), 0x7F, 0x9B, 0x202E, 0x2066, 0xD800, 0xE0001))) + "end"
    flow = talked(turn(said, model="m\x1b[2J"), headers=[("x-session-id", "s\x1b[2J\u202e")])
    flow.request.path = "/v1/messages?\x9b=\u202e"
    path = write(tmp_path / "talk.mitm", [flow, flow])
    for mode in ([], ["--session"], ["--show", "1"], ["--diff", "1", "2"], ["--jsonl"]):
        out = run_main("flows", path, *mode).out
        assert not set(out) & set(said) - set("\n\tend"), mode
    assert json.loads(out.splitlines()[0])["request"]["body"]["messages"][0]["content"] == said


# ---- recordings that cannot be read ----


def newer(data: bytes) -> bytes:
    state = tnetstring.loads(data)
    assert isinstance(state, dict)
    return tnetstring.dumps({**state, "version": version.FLOW_FORMAT_VERSION + 1})


BROKEN: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda data: b"", "the file is empty: it contains no request"),
    "cut": (lambda data: data + data[:1000], "cut off inside flow 2, at byte"),
    "cut in its first flow": (lambda data: data[:1000], "cut off inside flow 1"),
    "newer": (newer, "from a newer mitmproxy"),
    "a picture": (lambda data: b"\x89PNG\r\n\x1a\n", "this is not a recording"),
    "numbers": (lambda data: b"12:30 lunch\n13:00 walk", "this is not a recording"),
    "rubbish behind a flow": (lambda data: data + b"rubbish", "no flow begins at byte"),
    "another structure": (lambda data: b"7:1:a,1:b]]", "this is not a recording"),
    "a list": (lambda data: tnetstring.dumps([1]), "this is not a recording"),
    "no state": (lambda data: tnetstring.dumps({"version": version.FLOW_FORMAT_VERSION}), "damaged"),
    "a log": (lambda data: b'{"rule": "x", "status": 200}\n', 'no "log" with "entries"'),
    "half a HAR": (lambda data: b'{"log": {"entries": [{"a": 1}, {"b"', "cut off inside the HAR file"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_recording_is_reported_in_one_sentence(name: str, tmp_path: Path, run_main: RunMain) -> None:
    change, expected = BROKEN[name]
    data = write(tmp_path / "whole", [talked(FIRST)]).read_bytes()
    path = tmp_path / "talk.mitm"
    path.write_bytes(change(data))
    seen = run_main("flows", path, status=1)
    message = seen.err.splitlines()[-1]
    assert message.startswith(f"mitm-gateway: {path}: ")
    assert expected in message
    assert "; expected a file that mitmproxy has written" in message
    is_first_whole = name in ("cut", "rubbish behind a flow")
    assert ("claude-opus-4-8" in seen.out) == is_first_whole


@pytest.mark.parametrize("name", ["missing", "."])
def test_a_missing_file_or_a_folder_is_named(name: str, tmp_path: Path, run_main: RunMain) -> None:
    assert str(tmp_path / name) in run_main("flows", tmp_path / name, status=1).err


def test_a_flow_that_is_too_large_is_left_out(
    recording: Path, monkeypatch: pytest.MonkeyPatch, run_main: RunMain
) -> None:
    first = int(recording.read_bytes().partition(b":")[0])
    monkeypatch.setattr(recording_file, "MAX_FLOW", first)
    seen = run_main("flows", recording)
    assert len(seen.out.splitlines()) == 2
    assert "flow 2 has" in seen.err


def test_a_flow_with_odd_values_is_left_out(tmp_path: Path, run_main: RunMain) -> None:
    odd = talked(FIRST)
    odd.metadata["gateway_original"] = {"host": 3}
    path = write(tmp_path / "talk.mitm", [odd, talked(SECOND)])
    seen = run_main("flows", path)
    assert [line.split()[0] for line in seen.out.splitlines()] == ["#", "2"]
    assert seen.err == f"mitm-gateway: {path}: request 1 has invalid values (KeyError) and is left out\n"


def test_flows_of_other_protocols_are_passed_over(tmp_path: Path, run_main: RunMain) -> None:
    path = write(tmp_path / "talk.mitm", [tflow.ttcpflow(), talked(FIRST), tflow.tdnsflow()])
    assert [line.split()[0] for line in run_main("flows", path).out.splitlines()] == ["#", "1"]


# ---- secrets ----

# None has the shape of a well-known issuer's key, apart from the first.
KEYS = {
    "shape": "sk-ant-api03-AAAABBBBCCCCDDDDEEEE",
    "header": "opaque-header-0123456789abcdef",
    "scheme": "opaque-bearer-0123456789abcdef",
    "password": "pass-0123456789abcdef",
    "query": "opaque-query-0123456789abcdef",
    "cookie": "opaque-cookie-0123456789abcdef",
    "set-cookie": "opaque-setcookie-0123456789abc",
    "answered": "opaque-token-0123456789abcdef",
    "form": "opaque-form-0123456789abcdef",
    "location": "opaque-location-0123456789abc",
    "pasted": "opaque-pasted-0123456789abcdef",
    "escaped": "opaque-escaped-0123456789abcd",
}
MODES: tuple[list[str], ...] = ([], *(["--show", str(number)] for number in range(1, 5)), ["--jsonl"])


def leaky_flows() -> list[http.HTTPFlow]:
    """Flows with a key in every slot, as a mitmproxy without the gateway records them."""
    basic = base64.b64encode(f"user:{KEYS['password']}".encode()).decode()
    every = " ".join(KEYS.values())
    escaped = json.dumps({"note": KEYS["escaped"]}).replace("opaque-e", "opaque\\u002de").encode()
    token = talked(
        f"grant_type=x&client_secret={KEYS['form']}".encode(),
        json.dumps({"access_token": KEYS["answered"], "expires_in": 3600}).encode(),
        url=f"https://auth.example.com/token?api_key={KEYS['query']}",
        headers=[("cookie", f"sid={KEYS['cookie']}"), ("x-app-key", KEYS["escaped"])],
        kind="application/json",
    )
    token.request.headers["content-type"] = "application/x-www-form-urlencoded"
    token.response.headers["set-cookie"] = f"sid={KEYS['set-cookie']}; Path=/"  # type: ignore[union-attr]
    token.response.headers["location"] = f"/next?token={KEYS['location']}"  # type: ignore[union-attr]
    asked = talked(
        turn(f"my keys: {every}", "fine", f'curl -H "x-api-key: {KEYS["pasted"]}"', metadata={"k": every}),
        json.dumps({"content": [{"type": "text", "text": f"you sent {every}"}]}).encode(),
        headers=[
            ("x-api-key", KEYS["shape"]),
            ("x-gateway-key", KEYS["header"]),
            ("authorization", f"Bearer {KEYS['scheme']}"),
            ("proxy-authorization", f"Basic {basic}"),
            ("x-note", every),
            ("x-token", KEYS["pasted"]),
        ],
        kind="application/json",
    )
    facts = {"outcome": "ok", "model": "m", "hint": every, "refusal": every, "notes": [every]}
    asked.metadata["gateway"] = facts
    asked.comment = every
    failed = talked(turn("x"), b"{}")
    failed.response, failed.error = None, Error(f"no upstream for {every}")
    return [token, asked, failed, talked(turn(*KEYS.values()), escaped, kind="application/json")]


def test_no_output_contains_a_key(tmp_path: Path, run_main: RunMain) -> None:
    path = write(tmp_path / "talk.mitm", leaky_flows())
    page = tmp_path / "out.html"
    for mode in (*MODES, ["--html", str(page)]):
        seen = run_main("flows", path, *mode)
        written = page.read_text() if page.exists() else ""
        for name, key in KEYS.items():
            assert key not in seen.out + seen.err + written, (mode, name)
