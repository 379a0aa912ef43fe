"""mitmweb in a real browser after a real Claude Code call; `SCREENSHOTS=FOLDER` keeps what it looked like."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from mitmproxy import version

from mitm_gateway.cli.mitmproxy_options import WEB_COLUMNS
from support.answers import Stream, event, insist_on_bearer, message
from support.constants import CK, ENV, GW, GW_MASKED, ROOT
from support.starters import RunClaude, StartMitmdump, StartRecorder

pytestmark = pytest.mark.e2e

SCRIPT = ROOT / "tests" / "browser" / "mitmweb.mjs"
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


PROMPT = "hi"  # longer ones make Claude Code ask for a title too
TEXT = "Hello! Which rule shall we look at?"
TOKENS = {"input_tokens": 812, "cache_read_input_tokens": 20_480, "output_tokens": 1}
EVENTS = (
    event("message_start", message=message("gateway-large", content=[], stop_reason=None, usage=TOKENS)),
    event(
        "content_block_start", index=0, content_block={"type": "thinking", "thinking": "", "signature": ""}
    ),
    event(
        "content_block_delta",
        index=0,
        delta={"type": "thinking_delta", "thinking": "A greeting; ask what they are after."},
    ),
    event("content_block_delta", index=0, delta={"type": "signature_delta", "signature": "c2ln"}),
    event("content_block_stop", index=0),
    event("content_block_start", index=1, content_block={"type": "text", "text": ""}),
    event("content_block_delta", index=1, delta={"type": "text_delta", "text": TEXT}),
    event("content_block_stop", index=1),
    event("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 96}),
    event("message_stop"),
)


def find_playwright() -> Path:
    """playwright-core: `PLAYWRIGHT_CORE`, or what `make test` installed under `.cache/npm`."""
    default = ROOT / ".cache" / "npm" / "node_modules" / "playwright-core"
    return Path(os.environ.get("PLAYWRIGHT_CORE") or default)


@pytest.mark.skipif(version.VERSION.startswith("11"), reason="mitmweb is driven on mitmproxy 12")
@pytest.mark.skipif(not find_playwright().exists(), reason="playwright-core is not installed")
@pytest.mark.skipif(not shutil.which("chromium") or not shutil.which("node"), reason="no chromium or no node")
def test_mitmweb_shows_a_claude_code_call(
    recorder: StartRecorder, mitmdump: StartMitmdump, run_claude: RunClaude
) -> None:
    upstream = recorder(insist_on_bearer(GW, Stream(EVENTS, gated=False)))
    proxy = mitmdump(
        *(part for column in WEB_COLUMNS for part in ("--set", f"web_columns={column}")),
        rules=RULES.format(upstream.url),
        modes=["reverse:https://api.anthropic.com"],
        env=ENV,
        web=True,
    )
    done = run_claude({"ANTHROPIC_BASE_URL": proxy.url, "ANTHROPIC_API_KEY": CK}, PROMPT)
    assert done.stdout == f"{TEXT}\n", done
    sent = len(upstream.requests)
    command = ["node", SCRIPT, find_playwright(), shutil.which("chromium"), proxy.web_url]
    command += [os.environ["SCREENSHOTS"]] if "SCREENSHOTS" in os.environ else []
    driven = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, timeout=120, check=False
    )
    assert driven.returncode == 0, driven.stderr
    seen = json.loads(driven.stdout)
    assert "gateway: x-api-key → bearer, " in seen["row"]
    assert "user:" in seen["request"]
    assert "remove metadata" in seen["gateway"]
    assert f"  {PROMPT}\n" in seen["request"]
    assert TEXT in seen["response"]
    assert f"Authorization: Bearer {GW_MASKED}" in seen["gateway"]
    assert CK not in driven.stdout
    assert GW not in driven.stdout
    again = upstream.wait_for_request(count=sent + 1)
    assert again.header("authorization") == f"Bearer {GW}"
