"""The 502 for an upstream that cannot be used names the cause."""

import datetime
import json
import ssl
from collections.abc import Sequence
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from mitmproxy import io

from mitm_gateway.llm.apis import Form
from mitm_gateway.llm.errors import error_body
from mitm_gateway.patches.safety.error_pages import cause_of
from mitm_gateway.wire.refusal import Refusal
from support.answers import json_reply, message
from support.certificates import Authority
from support.company_proxy import Relay
from support.constants import API, REVERSE
from support.fixture_types import StartMitmdump, StartRecorder
from support.http_client import Http2Client, Wire, pseudo_headers
from support.program import unused_port
from support.table import table

pytestmark = pytest.mark.e2e


class Demanding(Authority):
    """An authority whose servers want a certificate of their clients."""

    version = ssl.TLSVersion.TLSv1_3
    client: Path | None = None

    def server_context(self, *names: str, alpn: Sequence[str] = ("http/1.1",)) -> ssl.SSLContext:
        context = super().server_context(*names, alpn=alpn)
        context.verify_mode, context.maximum_version = ssl.CERT_REQUIRED, self.version
        context.load_verify_locations(self.client or self.ca_file)
        return context


def client_certificate() -> bytes:
    """Return the key and the self-signed certificate of a client. mitmproxy makes certificates for servers only."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name.from_rfc4514_string("CN=client")
    now, day = datetime.datetime.now(datetime.UTC), datetime.timedelta(days=1)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    certificate = builder.not_valid_before(now - day).not_valid_after(now + day).sign(key, hashes.SHA256())
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return key.private_bytes(*form) + certificate.public_bytes(serialization.Encoding.PEM)


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
            f"https://localhost:{demanding_13.port}": "if it wants a client's certificate, set client_certs=FILE",
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


FORMS: dict[str, Form] = {
    "/v1/messages": "anthropic",
    "/v1/chat/completions": "openai",
    "/openai/deployments/x/embeddings": "openai",
    "/v1beta/models/x:generateContent": "gemini",
    "/model/x/converse": "bedrock",
}


@pytest.mark.parametrize("protocol", ["http/1.1", "h2"])
def test_the_page_has_the_form_of_the_api(mitmdump: StartMitmdump, tmp_path: Path, protocol: str) -> None:
    rule = f"match: {{host: {API}}}, upstream: 'http://127.0.0.1:{unused_port()}', auth: {{scheme: none}}"
    proxy = mitmdump("-w", str(tmp_path / "flows"), rules=f"rules: [{{{rule}}}]")
    for path, form in FORMS.items():
        with Wire.through(proxy.port, f"{API}:443", proxy.ca_cert, alpn=(protocol,)) as wire:
            if protocol == "h2":
                answer = Http2Client(wire).request(pseudo_headers(API, path, "POST"), b"{}")
            else:
                answer = wire.request("POST", path, [("Host", API)], b"{}")
        assert answer.status == 502
        assert answer.body == error_body(Refusal(502, "the upstream refused the connection"), form)
        assert answer.header("content-type") == "application/json"
        if protocol != "h2":
            assert bool(answer.header("x-amzn-errortype")) == (form == "bedrock")
    proxy.stop()
    with (tmp_path / "flows").open("rb") as file:
        assert len([*io.FlowReader(file).stream()]) == len(FORMS)
    assert "Addon error" not in proxy.output()


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


def test_an_upstream_gets_the_certificate_of_its_own_file_in_a_folder(
    mitmdump: StartMitmdump, recorder: StartRecorder, tmp_path: Path
) -> None:
    demanding, folder, hosts = Demanding(tmp_path), tmp_path / "certificates", ["own.test", "other.test"]
    folder.mkdir()
    demanding.client = folder / f"{hosts[0]}.pem"
    demanding.client.write_bytes(client_certificate())
    upstreams = [recorder(json_reply(message()), tls=demanding, names=[host]) for host in hosts]
    rules = [
        f"{{match: {{host: {API}, path: /{host}}}, upstream: 'https://{host}', auth: {{scheme: none}}}}"
        for host in hosts
    ]
    proxy = mitmdump(
        *("--set", f"client_certs={folder}"),
        rules=f"rules: [{', '.join(rules)}]",
        modes=REVERSE,
        names={f"{host}:443": upstream.port for host, upstream in zip(hosts, upstreams, strict=True)},
        trust=demanding.ca_file,
    )
    for host, status in zip(hosts, [200, 502], strict=True):
        with Wire(proxy.port) as wire:
            assert wire.request("GET", f"/{host}", [("Host", "localhost")]).status == status
