"""Claude Code through a mitmproxy without the gateway, on which the gateway's tests rely."""

import pytest

from support.answers import claude_answers
from support.certificates import Authority
from support.starters import RunClaude, StartMitmdump, StartRecorder

pytestmark = pytest.mark.e2e

KEY = "sk-ant-test-0123456789"


def test_a_base_url_leads_to_a_reverse_listener(
    recorder: StartRecorder, mitmdump: StartMitmdump, run_claude: RunClaude
) -> None:
    upstream = recorder(claude_answers)
    proxy = mitmdump(script=None, modes=[f"reverse:{upstream.url}"])
    done = run_claude({"ANTHROPIC_BASE_URL": proxy.url, "ANTHROPIC_API_KEY": KEY})
    assert (done.code, done.stdout) == (0, "hello there\n"), done
    asked = upstream.wait_for_request("/v1/messages")
    assert asked.target == "/v1/messages?beta=true"
    assert asked.header("x-api-key") == KEY
    assert asked.header("authorization") is None
    assert asked.json["stream"] is True


def test_proxy_variables_lead_through_an_intercepting_listener(
    recorder: StartRecorder, mitmdump: StartMitmdump, run_claude: RunClaude, authority: Authority
) -> None:
    upstream = recorder(claude_answers, tls=authority, names=["api.anthropic.com"])
    proxy = mitmdump(script=None, names={"api.anthropic.com:443": upstream.port}, trust=authority.ca_file)
    done = run_claude(
        {"HTTPS_PROXY": proxy.url, "NODE_EXTRA_CA_CERTS": str(proxy.ca_cert), "ANTHROPIC_API_KEY": KEY}
    )
    assert (done.code, done.stdout) == (0, "hello there\n"), done
    asked = upstream.wait_for_request("/v1/messages")
    assert asked.header("host") == "api.anthropic.com"
    assert asked.header("x-api-key") == KEY
