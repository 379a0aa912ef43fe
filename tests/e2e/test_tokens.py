"""`mitm-gateway token`: its requests to recorded servers, and the JSON that it prints."""

import json
import time
from pathlib import Path
from urllib.parse import parse_qs

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from mitm_gateway.credentials.helper import parse_output
from mitm_gateway.credentials.tokens import copilot, oauth2
from mitm_gateway.credentials.tokens.http_client import TokenError, ask
from support.answers import Answer, Bytes, Reply, Seen, json_reply
from support.command import Command
from support.company_proxy import Relay
from support.fixture_types import StartRecorder
from support.table import table

pytestmark = pytest.mark.e2e

GITHUB = "gho_0123456789abcdef0123"


def form(request: Seen) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(request.body.decode()).items()}


def github_answers(request: Seen) -> Answer:
    if request.path == "/copilot_internal/v2/token":
        if request.values("authorization") != [f"token {GITHUB}"]:
            return json_reply({"error_details": {"message": "no access here"}}, 403)
        return json_reply(
            {
                "token": "tid=abc;exp=1",
                "expires_at": int(time.time()) + 1800,
                "refresh_in": 1500,
                "endpoints": {"api": "https://api.business.githubcopilot.com"},
            }
        )
    return json_reply({"message": "not found"}, 404)


def test_copilot_exchanges_a_github_token(recorder: StartRecorder, command: Command) -> None:
    upstream = recorder(github_answers)
    done = command.run(
        "token", "github-copilot", "--api-url", upstream.url, env={"COPILOT_GITHUB_TOKEN": GITHUB}
    )
    assert done.returncode == 0, done
    printed = json.loads(done.stdout)
    assert (printed["token"], printed["api"]) == ("tid=abc;exp=1", "https://api.business.githubcopilot.com")
    assert 1400 < printed["expires_at"] - time.time() <= 1500
    (request,) = upstream.requests
    assert request.header("x-github-api-version") == "2025-04-01"
    assert (request.header("editor-version") or "").startswith("vscode/1.")
    value = parse_output(done.stdout.encode(), 300, 0.0, time.time())
    assert value.secret.reveal() == "tid=abc;exp=1"


@pytest.mark.parametrize("token", ["ghp_0123456789abcdef", "github_pat_0123456789", "ghs_0123456789abcdef"])
def test_copilot_refuses_what_github_would_refuse(command: Command, token: str) -> None:
    # Nothing listens at the URL: the kind of token is enough.
    done = command.run("token", "github-copilot", "--api-url", "http://127.0.0.1:9", env={"GH_TOKEN": token})
    assert done.returncode == 1
    assert "Copilot does not accept" in done.stderr
    assert token not in done.stdout + done.stderr


def test_copilot_reports_why_an_account_gets_no_token(recorder: StartRecorder, command: Command) -> None:
    upstream = recorder(github_answers)
    env = {"GITHUB_TOKEN": "gho_of_another_account"}
    done = command.run("token", "github-copilot", "--api-url", upstream.url, env=env)
    assert (done.returncode, done.stdout) == (1, "")
    assert "status 403): no access here; does this account have Copilot?" in done.stderr
    assert env["GITHUB_TOKEN"] not in done.stderr


def test_copilot_signs_in_with_a_code_and_keeps_the_token(recorder: StartRecorder, command: Command) -> None:
    polls = iter(
        [{"error": "authorization_pending"}, {"error": "authorization_pending"}, {"access_token": GITHUB}]
    )

    def answers(request: Seen) -> Answer:
        if request.path == "/login/device/code":
            return json_reply(
                {
                    "device_code": "device-1",
                    "user_code": "ABCD-1234",
                    "verification_uri": "https://github.com/login/device",
                    "interval": 0.01,
                    "expires_in": 900,
                }
            )
        if request.path == "/login/oauth/access_token":
            assert form(request)["device_code"] == "device-1"
            return json_reply(next(polls))
        return github_answers(request)

    upstream = recorder(answers)
    urls = ("--api-url", upstream.url, "--github-url", upstream.url)
    done = command.run("token", "github-copilot", "--login", *urls)
    assert done.returncode == 0, done
    assert json.loads(done.stdout)["token"] == "tid=abc;exp=1"
    assert "Open https://github.com/login/device and enter the code ABCD-1234" in done.stderr
    assert "waiting; the code is valid" in done.stderr
    assert GITHUB not in done.stderr
    kept = command.config / "github-copilot.token"
    assert kept.stat().st_mode & 0o777 == 0o600
    again = command.run("token", "github-copilot", *urls)
    assert json.loads(again.stdout)["token"] == "tid=abc;exp=1"


def test_the_device_flow_slows_down_and_ends(recorder: StartRecorder) -> None:
    polls = iter([{"error": "slow_down"}, {"error": "expired_token"}])

    def answers(request: Seen) -> Answer:
        if request.path == "/login/device/code":
            return json_reply({"device_code": "d", "verification_uri": "https://x", "interval": 5})
        return json_reply(next(polls))

    pauses: list[float] = []
    with pytest.raises(TokenError, match="expired before it was entered"):
        copilot.device_flow(lambda text: None, pauses.append, recorder(answers).url)
    assert pauses == [5, 10]


def test_oauth2_gets_a_token_for_client_credentials(recorder: StartRecorder, command: Command) -> None:
    upstream = recorder(json_reply({"access_token": "at-1", "expires_in": 600, "token_type": "Bearer"}))
    args = ("--token-url", f"{upstream.url}/oauth/token", "--client-id", "my:id", "--secret-env", "S")
    more = ("--scope", "gateway.use", "--audience", "https://gw")
    done = command.run("token", "oauth2", *args, *more, env={"S": "p/w"})
    assert json.loads(done.stdout) == {"token": "at-1", "expires_in": 600}
    (request,) = upstream.requests
    # RFC 6749, 2.3.1: base64 of "my%3Aid:p%2Fw"
    assert request.header("authorization") == "Basic bXklM0FpZDpwJTJGdw=="
    assert form(request) == {
        "grant_type": "client_credentials", "scope": "gateway.use", "audience": "https://gw"
    }  # fmt: skip


def test_oauth2_may_send_the_secret_in_the_body(
    recorder: StartRecorder, command: Command, tmp_path: Path
) -> None:
    upstream = recorder(json_reply({"access_token": "at-1"}))
    file = tmp_path / "secret"
    file.write_text("p/w\n")
    args = ("--token-url", upstream.url, "--client-id", "id", "--secret-file", file, "--in-body")
    assert json.loads(command.run("token", "oauth2", *args).stdout) == {"token": "at-1"}
    assert upstream.requests[0].header("authorization") is None
    assert form(upstream.requests[0])["client_secret"] == "p/w"


def test_oauth2_reports_a_refusal_without_the_secret(recorder: StartRecorder, command: Command) -> None:
    secret = "very-secret-0123456789"
    upstream = recorder(json_reply({"error": "invalid_client", "error_description": secret}, 401))
    args = ("--token-url", upstream.url, "--client-id", "id", "--secret-env", "S")
    done = command.run("token", "oauth2", *args, env={"S": secret})
    assert done.returncode == 1
    assert done.stderr == "mitm-gateway: token: the token server answered invalid_client (status 401)\n"


def test_a_secret_for_loopback_is_not_sent_through_a_proxy(
    recorder: StartRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy, upstream = recorder(json_reply({})), recorder(json_reply({"access_token": "at-1"}))
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, proxy.url)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    assert ask(upstream.url, form={"client_secret": "x"}).text("access_token") == "at-1"
    assert proxy.raw == b""


@table("life", ["1" + "0" * 400, "1e999", '"1' + "0" * 400 + '"', "NaN", "true", '"soon"', "[]"])
def test_an_unusable_lifetime_of_a_token_is_ignored(recorder: StartRecorder, life: str) -> None:
    body = f'{{"access_token": "at-1", "expires_in": {life}}}'.encode()
    upstream = recorder(Reply(200, body=body, headers=(("Content-Type", "application/json"),)))
    assert oauth2.client_credentials(upstream.url, "id", "secret") == {"token": "at-1"}


CHUNKED = b"Transfer-Encoding: chunked\r\n\r\nzz\r\n"


@pytest.mark.parametrize(
    "answer", [b"\x1b[2J\r\n\r\n", b"HTTP/1.1 200 OK\r\n" + CHUNKED, b"HTTP/1.1 400 Bad\r\n" + CHUNKED]
)
def test_a_token_server_that_does_not_speak_http_is_reported_in_words(
    recorder: StartRecorder, answer: bytes
) -> None:
    with pytest.raises(TokenError, match="did not answer") as raised:
        oauth2.client_credentials(recorder(Bytes(answer)).url, "id", "secret")
    assert "timed out" not in str(raised.value)
    assert str(raised.value).isprintable()


def test_a_secret_goes_nowhere_in_clear_or_by_a_redirect(recorder: StartRecorder) -> None:
    with pytest.raises(TokenError, match="in clear"):
        ask("http://idp.example.com/token", form={"client_secret": "x"})
    other = recorder(json_reply({"access_token": "stolen"}))
    moved = recorder(Reply(302, headers=(("Location", other.url),)))
    assert ask(moved.url, headers={"Authorization": "token x"}).status == 302
    assert other.raw == b""


def test_google_gets_a_token_for_application_default_credentials(
    recorder: StartRecorder, command: Command, tmp_path: Path
) -> None:
    upstream = recorder(json_reply({"access_token": "ya29.test", "expires_in": 3600}))
    key = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    account = tmp_path / "account.json"
    account.write_text(
        json.dumps(
            {
                "type": "service_account",
                "project_id": "p",
                "private_key": key.decode(),
                "client_email": "a@p.iam.gserviceaccount.com",
                "token_uri": f"{upstream.url}/token",
            }
        )
    )
    logins = tmp_path / "logins"
    logins.write_text("default login somebody password of-another-host\n")
    env = {"GOOGLE_APPLICATION_CREDENTIALS": str(account), "NETRC": str(logins)}
    done = command.run("token", "google", env=env)
    assert done.returncode == 0, done
    printed = json.loads(done.stdout)
    assert printed["token"] == "ya29.test"
    assert 3500 < printed["expires_at"] - time.time() <= 3601
    assert form(upstream.requests[0])["grant_type"] == "urn:ietf:params:oauth:grant-type:jwt-bearer"
    assert upstream.requests[0].header("authorization") is None


@pytest.mark.parametrize(
    ("provider", "cure"),
    [
        ("github-copilot", "sign in once with `mitm-gateway token github-copilot --login`"),
        ("google", "gcloud auth application-default login"),
    ],
)
def test_without_a_login_the_way_to_one_is_named(command: Command, provider: str, cure: str) -> None:
    env = {"GOOGLE_APPLICATION_CREDENTIALS": "/nowhere.json", "PATH": "/nowhere", "NO_GCE_CHECK": "true"}
    done = command.run("token", provider, env=env)
    assert (done.returncode, cure in done.stderr) == (1, True), done


@pytest.mark.parametrize("has_setting", [False, True])
def test_a_token_is_fetched_through_the_gateways_proxy(
    monkeypatch: pytest.MonkeyPatch, has_setting: bool
) -> None:
    with Relay() as relay, Relay() as other:
        monkeypatch.setenv(
            "HTTPS_PROXY", f"http://u:p%40ss@127.0.0.1:{(other if has_setting else relay).port}"
        )
        monkeypatch.delenv("https_proxy", raising=False)
        if has_setting:
            monkeypatch.setenv("MITM_GATEWAY_PROXY", f"http://u:p%40ss@127.0.0.1:{relay.port}")
        with pytest.raises(TokenError) as fault:
            ask("https://tokens.test/")
    assert relay.heads[0].startswith(b"CONNECT tokens.test:443 ")
    assert b"Basic dTpwQHNz" in relay.heads[0]
    assert other.heads == []
    assert "p@ss" not in str(fault.value)
