"""The 502 for an upstream that cannot be used names the cause."""

import json
import ssl
from collections.abc import Sequence
from pathlib import Path

import pytest

from mitm_gateway.patches.safety.error_pages import cause_of
from support.certificates import Authority
from support.company_proxy import Relay
from support.constants import API, REVERSE
from support.fixture_types import StartMitmdump, StartRecorder
from support.http_client import Wire
from support.program import unused_port
from support.table import table

pytestmark = pytest.mark.e2e


class Demanding(Authority):
    """An authority whose servers want a certificate of their clients."""

    version = ssl.TLSVersion.TLSv1_3

    def server_context(self, *names: str, alpn: Sequence[str] = ("http/1.1",)) -> ssl.SSLContext:
        context = super().server_context(*names, alpn=alpn)
        context.verify_mode, context.maximum_version = ssl.CERT_REQUIRED, self.version
        context.load_verify_locations(self.ca_file)
        return context


def test_the_cause_is_in_the_answer(
    mitmdump: StartMitmdump, recorder: StartRecorder, authority: Authority, tmp_path: Path
) -> None:
    demanding = Demanding(tmp_path)
    demanding_13 = recorder(tls=demanding, names=["localhost"])
    demanding.version = ssl.TLSVersion.TLSv1_2
    demanding_12 = recorder(tls=demanding, names=["localhost"])
    untrusted = recorder(tls=authority, names=["localhost"])
    with Relay(answer=b"SSH-2.0-OpenSSH_9.9\r\n\r\n") as ssh:
        causes = {
            f"http://127.0.0.1:{unused_port()}": "the upstream refused the connection",
            f"https://localhost:{untrusted.port}": "not trusted; for a private CA set ssl_verify_upstream_trusted_ca=FILE",
            f"https://localhost:{demanding_12.port}": "if it wants a client's certificate, set client_certs=FILE",
            f"https://localhost:{demanding_13.port}": "the upstream closed the connection without an answer",
            f"http://127.0.0.1:{ssh.port}": "the upstream does not answer as HTTP",
            f"https://127.0.0.1:{ssh.port}": "the upstream does not answer as HTTP",
        }
        rules = [
            f"{{match: {{host: {API}, path: /{number}}}, upstream: '{url}', auth: {{scheme: keep}}}}"
            for number, url in enumerate(causes)
        ]
        proxy = mitmdump(rules=f"rules: [{', '.join(rules)}]", modes=REVERSE, trust=demanding.ca_file)
        for number, (url, cause) in enumerate(causes.items()):
            with Wire(proxy.port) as wire:
                answer = wire.request("GET", f"/{number}", [("Host", "localhost")])
            assert answer.status == 502, url
            error = json.loads(answer.body)["error"]
            assert error["type"] == "api_error", url
            assert cause in error["message"], url


@table(
    ("message", "cause"),
    [
        (
            "Upstream proxy 10.0.0.1:3128 refused HTTP CONNECT request: 407 No",
            "refused the connection with 407",
        ),
        ("[Errno 110] Connection timed out", "timed out"),
        ("[Errno 101] Network is unreachable", "network cannot be reached"),
        ("server closed connection", "closed the connection without an answer"),
        ("[Errno -2] Name or service not known", "name was not found"),
        ("[Errno 8] nodename nor servname provided, or not known", "name was not found"),
    ],
)
def test_the_words_of_systems_and_proxies_are_understood(message: str, cause: str) -> None:
    found = cause_of(message)
    assert found is not None
    assert cause in found


def test_a_message_without_a_known_cause_is_not_repeated() -> None:
    assert cause_of("sk-ant-key") is None
