"""mitmweb and the HTML page in a real browser after a session of Claude Code.

`SCREENSHOTS=FOLDER` keeps what they looked like.
"""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from mitmproxy import version

from mitm_gateway.cli import main
from mitm_gateway.cli.mitmproxy_options import WEB_COLUMNS
from support.answers import Answer, Seen, Stream, claude_answers, event, insist_on_bearer, message
from support.constants import CK, ENV, GW, GW_MASKED, ROOT
from support.fixture_types import RunClaude, StartMitmdump, StartRecorder

pytestmark = pytest.mark.e2e

RULES = """
credentials:
  gateway: {{env: GW_KEY}}
rules:
  - name: gateway
    match: {{host: api.anthropic.com, path: /v1/**}}
    upstream: {}/anthropic
    auth: {{scheme: bearer, credential: gateway}}
    headers: {{remove: [x-stainless-*]}}
    body: {{remove: [metadata, context_management]}}
    models: {{default: gateway-large}}
    respond: {{head: true}}
"""


PRICES = "models: {gateway-large: {input: 5, output: 25, cache_read: 0.5, cache_write: 6.25}}"
PROMPT = "hi"  # longer ones make Claude Code ask for a title too
TEXT = "The notes ask for a second reader of the rules; the ideas name one."
FILES = ("notes.txt", "ideas.txt")
TURNS = 3


def block(index: int, start: Mapping[str, object], delta: Mapping[str, object]) -> tuple[bytes, ...]:
    return (
        event("content_block_start", index=index, content_block=start),
        event("content_block_delta", index=index, delta=delta),
        event("content_block_stop", index=index),
    )


def events(turn: int, *blocks: tuple[bytes, ...], stop: str) -> Stream:
    """A streamed turn of a session whose prompt is cached from its second turn on."""
    read, written = (0, 20_480) if turn == 0 else (20_480 + 300 * (turn - 1), 300)
    tokens = {"input_tokens": 12, "cache_read_input_tokens": read, "cache_creation_input_tokens": written}
    usage = {**tokens, "output_tokens": 1}
    start = message("gateway-large", id=f"msg_{turn}", content=[], stop_reason=None, usage=usage)
    parts = (
        event("message_start", message=start),
        *(part for each in blocks for part in each),
        event("message_delta", delta={"stop_reason": stop}, usage={"output_tokens": 96}),
        event("message_stop"),
    )
    return Stream(parts, gated=False)


def answers(request: Seen) -> Answer:
    """Two calls of a tool, then a text."""
    if request.method == "HEAD" or not request.json.get("tools"):
        return claude_answers(request)
    turn = sum(
        part.get("type") == "tool_result"
        for said in request.json["messages"]
        if isinstance(said["content"], list)
        for part in said["content"]
    )
    if turn == len(FILES):
        return events(
            turn,
            block(0, {"type": "text", "text": ""}, {"type": "text_delta", "text": TEXT}),
            stop="end_turn",
        )
    call = {"type": "tool_use", "id": f"toolu_{turn}", "name": "Read", "input": {}}
    path = json.dumps({"file_path": FILES[turn]})
    return events(turn, block(0, call, {"type": "input_json_delta", "partial_json": path}), stop="tool_use")


def dense(text: str) -> str:
    """A text without white space: views wrap their lines."""
    return "".join(text.split())


def find_playwright() -> Path:
    """playwright-core: `PLAYWRIGHT_CORE`, or what `make test` installed under `.cache/npm`."""
    default = ROOT / ".cache" / "npm" / "node_modules" / "playwright-core"
    return Path(os.environ.get("PLAYWRIGHT_CORE") or default)


TURN = (
    f"the content of {FILES[1]}",
    "since the request before:",
    r"same up to message \d+, two messages new",
    r"cache: 20,780 tokens read \(98 % of the prompt\), 300 written, 12 fresh; cost \$0\.0147",
)


@pytest.mark.skipif(version.VERSION.startswith("11"), reason="mitmweb is driven on mitmproxy 12")
@pytest.mark.skipif(not find_playwright().exists(), reason="playwright-core is not installed")
@pytest.mark.skipif(not shutil.which("chromium") or not shutil.which("node"), reason="no chromium or no node")
def test_mitmweb_and_the_page_show_a_session_of_claude_code(
    recorder: StartRecorder, mitmdump: StartMitmdump, run_claude: RunClaude, tmp_path: Path
) -> None:
    upstream = recorder(insist_on_bearer(GW, answers))
    saved, prices, home = tmp_path / "talk.mitm", tmp_path / "prices.yaml", tmp_path / "claude-home"
    prices.write_text(PRICES)
    for name in FILES:
        (home / name).write_text(f"the content of {name}")
    proxy = mitmdump(
        *("-w", str(saved), "--set", f"gateway_prices={prices}"),
        *(part for column in WEB_COLUMNS for part in ("--set", f"web_columns={column}")),
        rules=RULES.format(upstream.url),
        modes=["reverse:https://api.anthropic.com"],
        env=ENV,
        web=True,
    )
    done = run_claude(
        {"ANTHROPIC_BASE_URL": proxy.url, "ANTHROPIC_API_KEY": CK}, PROMPT, ["--allowedTools", "Read"]
    )
    assert done.stdout == f"{TEXT}\n", done
    sent = len(upstream.requests)
    last = [each for each in upstream.requests if each.body and each.json.get("tools")][-1].json

    seen = drive("mitmweb.mjs", proxy.web_url, TURNS)
    assert len(seen["rows"]) == TURNS
    assert re.search(r"\t\S+ 21\.1k→96 → gateway-large, .*, 98 % cached, \$0\.0147\t", seen["rows"][-1])
    assert_shows(seen["request"], last)
    for text in TURN:
        assert re.search(text, seen["request"]), text
    assert TEXT in seen["response"]
    assert "remove metadata" in seen["gateway"]
    assert f"Authorization: Bearer {GW_MASKED}" in seen["gateway"]
    again = upstream.wait_for_request(count=sent + 1)
    assert again.header("authorization") == f"Bearer {GW}"
    proxy.stop()

    page = tmp_path / "talk.html"
    assert main(["flows", str(saved), "--html", str(page)]) == 0
    read = drive("page.mjs", page, FILES[1])
    assert (read["complaints"], read["requests"]) == ([], [page.as_uri()])
    assert_shows(read["text"], last)
    shown = dense(read["text"])
    assert all(shown.count(dense(part["text"])) == 1 for part in last["system"])  # the later turns link to it
    for text in (TEXT, f"the content of {FILES[1]}", ": as in request 2"):
        assert dense(text) in shown
    for output in (seen, read):
        assert CK not in json.dumps(output)
        assert GW not in json.dumps(output)


def assert_shows(text: str, asked: dict[str, Any]) -> None:
    """Assert that a view contains the whole system prompt and every tool of a request."""
    shown = dense(text)
    for part in asked["system"]:
        assert dense(part["text"]) in shown
    for tool in asked["tools"]:
        assert dense(tool["description"]) in shown, tool["name"]


def drive(script: str, *arguments: object) -> dict[str, Any]:
    """Run a script in Chromium; return what it saw."""
    folder = os.environ.get("SCREENSHOTS")
    command = [
        "node",
        ROOT / "tests" / "browser" / script,
        find_playwright(),
        shutil.which("chromium"),
        *arguments,
    ]
    command += [folder] if folder else []
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    seen: dict[str, Any] = json.loads(done.stdout)
    return seen
