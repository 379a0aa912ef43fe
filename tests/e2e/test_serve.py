"""`serve`: a quiet terminal that shows how to use the gateway, and a line for each request of a rule."""

import json
import urllib.error
import urllib.request

import pytest

from support.command import Command
from support.program import unused_port

pytestmark = pytest.mark.e2e

RULES = """
rules:
  - {name: claude, match: {host: api.anthropic.com, path: /v1/**}, upstream: demo, auth: {scheme: bearer, credential: demo}}
  - {name: gpt, match: {host: api.openai.com, path: /v1/**}, upstream: demo, auth: {scheme: bearer, credential: demo}}
credentials: {demo: {env: DEMO_KEY, default: demo-key}}
"""


def status(url: str, body: object = None, method: str | None = None) -> tuple[int, str]:
    data = json.dumps(body).encode() if body is not None else None
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, method=method), timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as fault:
        return fault.code, fault.read().decode()


def test_serve_listens_for_each_host_and_prints_one_line_for_each_request_of_a_rule(command: Command) -> None:
    command.write_rules(RULES).chmod(0o600)
    port = unused_port()
    saved = command.home / "talk.mitm"
    running = command.fork("serve", "--port", str(port), "--save", saved)
    running.wait_for_output("for all clients")
    for number, host in enumerate(("api.anthropic.com", "api.openai.com")):
        assert f"http://127.0.0.1:{port + number} serves {host}\n" in running.stderr
    question = {"model": "claude-x", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
    assert status(f"http://127.0.0.1:{port}/v1/messages", question)[0] == 200
    assert status(f"http://127.0.0.1:{port}/", method="HEAD")[0] == 200
    code, text = status(f"http://127.0.0.1:{port + 1}/")
    assert (code, json.loads(text)["environment"]["OPENAI_BASE_URL"]) == (
        200,
        f"http://127.0.0.1:{port + 1}/v1",
    )
    code, text = status(f"http://127.0.0.1:{port + 1}/v2/x?key=secret-in-query")
    assert code == 404
    assert "GET https://api.openai.com/v2/x; the rules cover api.anthropic.com, api.openai.com" in text
    assert running.stop() == 0
    output = running.stdout
    assert f"the traffic is recorded in {saved}; " in running.stderr
    assert saved.stat().st_mode & 0o777 == 0o600
    assert "claude-x" in command.run("flows", saved).stdout
    requests = [line for line in output.splitlines() if "claude: " in line]
    assert len(requests) == 1, output
    assert "200" in requests[0]
    assert "claude-x" in requests[0]
    assert output.count("refused with 404") == 1
    assert output.count("no rule, 200, ") == output.count(", answered here") == 2
    assert ", a client's probe, " in output
    assert "disconnect" not in output
    assert "secret-in-query" not in output + text
