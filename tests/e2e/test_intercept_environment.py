"""`run --intercept`: nothing that an agent starts breaks, tried with the programs themselves."""

import functools
import http.server
import json
import shlex
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.answers import (
    Answer,
    Seen,
    Stream,
    claude_answers,
    insist_on_bearer,
    json_reply,
    message,
    message_events,
    tool_events,
)
from support.aws import event_stream
from support.certificates import Authority
from support.command import Command
from support.constants import API, GW, ROOT
from support.mcp_server import RESULT, McpServer
from support.one_rule import one_rule
from support.recorder import Recorder

pytestmark = pytest.mark.e2e

StartRecorder = Callable[..., Recorder]
# No entry of NO_PROXY covers it, so requests to it use the proxy; it is this machine all the same.
NEARBY = "127.0.0.2"
_ENV_PROXY_NODE = (22, 21)


def rules(upstream: Recorder, host: str = API) -> str:
    return one_rule(upstream.url, host=host, match="path: /**")


@pytest.fixture
def ruled(recorder: StartRecorder, command: Command) -> Recorder:
    """An upstream behind the rule for Anthropic's API."""
    upstream = recorder(insist_on_bearer(GW, json_reply(message())))
    command.write_rules(rules(upstream))
    return upstream


class Files:
    """An https server for a folder, on an address that the proxy serves too."""

    def __init__(self, folder: Path, authority: Authority) -> None:
        handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(folder))
        self._server = http.server.ThreadingHTTPServer((NEARBY, 0), handler)
        # Behind a proxy, npm compares the certificate of an address with this name.
        context = authority.server_context(NEARBY, "localhost")
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"https://{NEARBY}:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def files(tmp_path: Path, authority: Authority) -> Iterator[Files]:
    """A server whose certificate only the test's authority vouches for: a git repository, a text, and packages."""
    folder = tmp_path / "www"
    work = tmp_path / "work"
    for argv in (
        ["git", "init", "-q", "-b", "main", work],
        ["git", "-C", work, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "--allow-empty", "-m", "first"],
        ["git", "clone", "-q", "--bare", work, folder / "repo.git"],
        ["git", "-C", folder / "repo.git", "update-server-info"],
    ):  # fmt: skip
        subprocess.run([str(part) for part in argv], check=True)
    (folder / "text").write_text("plain text")
    write_packages(folder)
    served = Files(folder, authority)
    yield served
    served.close()


def write_packages(folder: Path) -> None:
    """Write a package for pip and one for npm."""
    (folder / "simple" / "tiny").mkdir(parents=True)
    (folder / "npm").mkdir()
    wheel = "tiny-1.0-py3-none-any.whl"
    with zipfile.ZipFile(folder / wheel, "w") as file:
        file.writestr("tiny.py", "")
        file.writestr("tiny-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
        file.writestr(
            "tiny-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        file.writestr("tiny-1.0.dist-info/RECORD", "")
    (folder / "simple" / "tiny" / "index.html").write_text(f'<a href="../../{wheel}">{wheel}</a>')
    versions = {"1.2.3": {"name": "tiny", "version": "1.2.3", "dist": {"tarball": "", "shasum": ""}}}
    document = {"name": "tiny", "dist-tags": {"latest": "1.2.3"}, "versions": versions}
    (folder / "npm" / "tiny").write_text(json.dumps(document))


# ---- hosts without a rule ----


def test_a_host_without_a_rule_is_tunnelled_with_its_own_certificate_unless_all_hosts_are_asked_for(
    ruled: Recorder, command: Command, files: Files, authority: Authority
) -> None:
    issuer = ["curl", "-sS", "-v", "-o", "/dev/null", f"{files.url}/text"]
    env = {"GW_KEY": GW, "SSL_CERT_FILE": str(authority.ca_file)}
    tunnelled = command.run("run", "--intercept", "--", *issuer, env=env)
    assert "issuer: CN=upstreams under test" in tunnelled.stderr, tunnelled.stderr
    decrypted = command.run("run", "--intercept", "--all-hosts", "--", *issuer, env=env)
    assert "issuer: CN=mitmproxy" in decrypted.stderr, decrypted.stderr
    assert decrypted.returncode == 0, "the user's own authority is trusted for upstreams too"


def test_a_local_server_is_not_reached_through_the_proxy(
    ruled: Recorder, recorder: StartRecorder, command: Command
) -> None:
    local = recorder(json_reply({"local": True}))
    done = command.run("run", "--intercept", "--", "curl", "-sS", local.url, env={"GW_KEY": GW})
    assert json.loads(done.stdout) == {"local": True}, done
    assert local.requests[0].target == "/"


# ---- clients ----


def test_fetch_of_node_uses_the_proxy(ruled: Recorder, command: Command) -> None:
    installed = ROOT / ".cache" / "npm" / "node_modules" / "node" / "bin" / "node"
    node = str(installed) if installed.exists() else shutil.which("node")
    found = subprocess.run([node, "--version"], capture_output=True, text=True).stdout if node else ""
    if not node or tuple(map(int, found.lstrip("v").split(".")[:2])) < _ENV_PROXY_NODE:
        pytest.skip(f"Node {'.'.join(map(str, _ENV_PROXY_NODE))} or later is needed, found {found or 'none'}")
    code = f"fetch('https://{API}/v1/messages', {{method: 'POST', body: '{{}}'}}).then(r => console.log(r.status))"
    done = command.run("run", "--intercept", "--", node, "-e", code, env={"GW_KEY": GW})
    assert done.stdout == "200\n", done


def test_claude_code_keeps_to_bedrock_if_the_rule_covers_bedrock(
    recorder: StartRecorder, command: Command, claude: Path
) -> None:
    upstream = recorder(lambda request: event_stream(message_events()))
    command.write_rules(rules(upstream, "bedrock-runtime.*.amazonaws.com"))
    env = {
        "GW_KEY": GW,
        "CLAUDE_CODE_USE_BEDROCK": "1",
        "AWS_REGION": "eu-central-1",
        "ANTHROPIC_API_KEY": "sk-ant-api03-the-users-own-key",
    }
    done = command.run("run", "--intercept", "--", claude, "-p", "hi", env=env)
    assert (done.returncode, done.stdout) == (0, "hello there\n"), done
    asked = [request for request in upstream.requests if request.method == "POST"]
    assert all(request.path.startswith("/model/") for request in asked)
    assert {value for request in asked for value in request.values("authorization")} == {f"Bearer {GW}"}


TOOL = "mcp__events__echo"


def calls_the_tool(request: Seen) -> Answer:
    """Have Claude Code call the tool of the MCP server once, and then repeat its result."""
    answer = claude_answers(request)
    if not isinstance(answer, Stream) or TOOL not in [tool["name"] for tool in request.json.get("tools", ())]:
        return answer
    model = request.json["model"]
    if RESULT.encode() in request.body:
        return Stream(message_events(model, [RESULT]), gated=False)
    return Stream(tool_events(model, TOOL, {}), gated=False)


# Claude Code else names the tools only, and has the model ask for their descriptions.
WHOLE_TOOLS = {"ENABLE_TOOL_SEARCH": "false"}


def claude_with(server: McpServer, claude: Path) -> list[str]:
    return [
        str(claude),
        "-p",
        "hi",
        "--mcp-config",
        server.config,
        "--strict-mcp-config",
        "--allowedTools",
        TOOL,
    ]


def test_claude_code_calls_a_tool_of_an_sse_server_whose_host_is_decrypted(
    recorder: StartRecorder, command: Command, authority: Authority, claude: Path
) -> None:
    upstream = recorder(insist_on_bearer(GW, calls_the_tool))
    command.write_rules(rules(upstream))
    env = {"GW_KEY": GW, "SSL_CERT_FILE": str(authority.ca_file), **WHOLE_TOOLS}
    with McpServer(authority, NEARBY) as server:
        client = claude_with(server, claude)
        done = command.run("run", "--intercept", "--all-hosts", "--", *client, env=env)
    assert (done.returncode, done.stdout) == (0, f"{RESULT}\n"), done
    assert "tools/call" in server.methods


def test_one_shell_runs_everything_that_an_agent_runs(
    recorder: StartRecorder, command: Command, files: Files, authority: Authority, claude: Path
) -> None:
    upstream = recorder(insist_on_bearer(GW, calls_the_tool))
    command.write_rules(rules(upstream))
    npm = "npm view tiny version" if shutil.which("npm") else "echo 1.2.3"
    with McpServer(authority, NEARBY) as server:
        script = f"""
set -e
git clone -q {files.url}/repo.git
curl -sS {files.url}/text; echo
{sys.executable} -c 'import requests; print(requests.get("{files.url}/text").status_code)'
{sys.executable} -m pip download -q --no-cache-dir --index-url {files.url}/simple tiny
ls *.whl
{npm} --registry {files.url}/npm/ --fetch-retries 0
{shlex.join(claude_with(server, claude))}
"""
        env = {"GW_KEY": GW, "SSL_CERT_FILE": str(authority.ca_file), **WHOLE_TOOLS}
        done = command.run("run", "--intercept", "--", "bash", "-c", script, env=env)
    shown = ["plain text", "200", "tiny-1.0-py3-none-any.whl", "1.2.3", RESULT]
    assert (done.returncode, done.stdout.split("\n")) == (0, [*shown, ""]), done
    assert "tools/call" in server.methods
