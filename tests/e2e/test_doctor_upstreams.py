"""`mitm-gateway doctor` connects to every upstream once, and names the stage that failed."""

import socket
from pathlib import Path

import pytest

from mitm_gateway.cli.doctor import upstreams
from mitm_gateway.cli.doctor.finding import Fault, Good, Subject
from mitm_gateway.rules.load import load
from support.answers import Reply
from support.certificates import Authority
from support.company_proxy import Relay
from support.fixture_types import StartRecorder
from support.program import unused_port


def found(folder: Path, *urls: str, **environ: str) -> list[str]:
    """Return the findings for rules with these upstreams; each fault has a fix."""
    rules = "".join(
        f"\n  - {{name: r{number}, match: {{host: h{number}.test}}, upstream: '{url}', auth: {{scheme: none}}}}"
        for number, url in enumerate(urls)
    )
    file = folder / "rules.yaml"
    file.write_text(f"rules:{rules}")
    file.chmod(0o600)
    subject = Subject(file, environ, unused_port(), folder, folder, "12.3.1")
    findings = list(upstreams.check(load(file, {}), subject))
    assert all(isinstance(each, Good | Fault) for each in findings)
    return [f"FAULT {each.text} / {each.fix}" if isinstance(each, Fault) else each.text for each in findings]


def test_each_upstream_has_one_line(tmp_path: Path, recorder: StartRecorder, authority: Authority) -> None:
    secure = recorder(lambda seen: Reply(404), tls=authority, names=["localhost"])
    plain = recorder(lambda seen: Reply(200))
    lines = found(
        tmp_path,
        f"https://localhost:{secure.port}/base",
        f"http://127.0.0.1:{plain.port}",
        f"http://127.0.0.1:{plain.port}",
        SSL_CERT_FILE=str(authority.ca_file),
    )
    assert lines == [
        f"upstream https://localhost:{secure.port} is reachable (404 for /)",
        f"upstream http://127.0.0.1:{plain.port} is reachable (200 for /)",
    ]
    assert [seen.header("authorization") for seen in plain.requests] == [None]


def test_the_stage_that_failed_is_named(
    tmp_path: Path, recorder: StartRecorder, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upstreams, "_PATIENCE_S", 2.0)
    secure = recorder(tls=authority, names=["localhost"])
    with Relay(answer=b"SSH-2.0-x\r\n\r\n") as other, socket.create_server(("127.0.0.1", 0)) as silent:
        urls = {
            f"http://127.0.0.1:{unused_port()}": ("refused the connection", "start it, or correct"),
            "https://nowhere.invalid": ("name was not found", "if only a proxy can find the name"),
            f"https://localhost:{secure.port}": (
                "certificate is not trusted",
                "ssl_verify_upstream_trusted_ca",
            ),
            f"https://127.0.0.1:{other.port}": (
                "does not answer as HTTP, or not over TLS",
                "correct the scheme",
            ),
            f"http://127.0.0.1:{other.port}": ("does not answer as HTTP", "correct the scheme"),
            f"http://127.0.0.1:{silent.getsockname()[1]}": ("timed out", "the proxy of your network"),
        }
        lines = found(tmp_path, *urls)
    assert len(lines) == len(urls)
    for number, (line, (url, (cause, fix))) in enumerate(zip(lines, urls.items(), strict=True)):
        assert line.startswith(f"FAULT upstream {url}: "), line
        assert cause in line
        assert fix in line
        assert "ssl_" in fix or f'the upstream of rule "r{number}"' in line


def test_upstreams_behind_a_proxy_are_dialled_through_it(
    tmp_path: Path, recorder: StartRecorder, authority: Authority
) -> None:
    secure = recorder(tls=authority, names=["gw.test"])
    plain = recorder()
    urls = ("https://gw.test", "http://plain.test")
    with Relay({"gw.test:443": secure.port, "plain.test:80": plain.port}, login="u:pass-word") as relay:
        environ = {"SSL_CERT_FILE": str(authority.ca_file)}
        place = f"127.0.0.1:{relay.port}"
        good = found(tmp_path, *urls, all_proxy=f"http://u:pass-word@{place}", **environ)
        assert [line.partition(" is reachable ")[2][: -len("(200 for /)")] for line in good] == [
            f"through the proxy {place} "
        ] * 2
        refused = found(tmp_path, *urls, all_proxy=f"http://u:wrong-word@{place}", **environ)
    for line in refused:
        assert f"the proxy {place} does not accept the user and the password in all_proxy (407)" in line
        assert "wrong-word" not in line


def test_an_invalid_proxy_url_is_a_fault(tmp_path: Path) -> None:
    [line] = found(tmp_path, "https://gw.test", HTTPS_PROXY="http://u:pass-word@")
    assert line.startswith("FAULT HTTPS_PROXY is not the URL of a proxy")
    assert "pass-word" not in line
