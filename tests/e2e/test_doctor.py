"""`mitm-gateway doctor`: each planted fault is found and comes with its fix; without faults it is content."""

from __future__ import annotations

import datetime
import json
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from mitm_gateway.cli import doctor
from mitm_gateway.cli.doctor import Fault, Patient, findings
from support.certificates import Authority
from support.launcher import Command
from support.processes import unused_port
from support.starters import StartMitmdump

SECRET = "doctor-secret-0123456789abcdef"
RULES = """
credentials: {gw: {env: GW_KEY}}
rules:
  - name: gw
    match: {host: api.anthropic.com, path: /v1/**}
    upstream: https://gw.example.com
    auth: {scheme: bearer, credential: gw}
"""


@pytest.fixture
def healthy(tmp_path: Path) -> Patient:
    """A patient without any fault."""
    file = tmp_path / "rules.yaml"
    file.write_text(RULES)
    file.chmod(0o600)
    confdir = tmp_path / "mitmproxy"
    confdir.mkdir()
    home = tmp_path / "home"
    home.mkdir()
    return Patient(
        rules=file,
        environ={"GW_KEY": SECRET, "HOME": str(home)},
        port=unused_port(),
        confdir=confdir,
        project=tmp_path,
        mitmproxy="12.2.3",
    )


def faults(patient: Patient) -> list[str]:
    """What is wrong, each fault with a fix; no secret is shown."""
    found = list(findings(patient))
    assert SECRET not in repr(found)
    assert all(fault.fix for fault in found if isinstance(fault, Fault))
    return [fault.text for fault in found if isinstance(fault, Fault)]


def with_env(patient: Patient, **variables: str) -> Patient:
    return replace(patient, environ={**patient.environ, **variables})


def with_rules(patient: Patient, text: str) -> Patient:
    patient.rules.write_text(text)
    return patient


def with_config(patient: Patient, text: str) -> Patient:
    (patient.confdir / "config.yaml").write_text(text)
    return patient


def with_settings(patient: Patient, **data: object) -> Patient:
    file = Path(patient.environ["HOME"]) / ".claude" / "settings.json"
    file.parent.mkdir()
    file.write_text(json.dumps(data))
    return patient


def test_a_healthy_patient_has_no_faults(healthy: Patient) -> None:
    assert faults(healthy) == []


def test_a_credential_is_shown_by_its_fingerprint(healthy: Patient) -> None:
    texts = [finding.text for finding in findings(healthy)]
    assert any(text.startswith('credential "gw" has a value, fingerprint ') for text in texts)


def test_no_rules_file(healthy: Patient, tmp_path: Path) -> None:
    (fault, *_) = [
        each for each in findings(replace(healthy, rules=tmp_path / "none")) if isinstance(each, Fault)
    ]
    assert "there is no such file" in fault.text
    assert fault.fix == "`mitm-gateway init PRESET` writes one"


@pytest.mark.parametrize(
    ("plant", "found"),
    [
        pytest.param(
            lambda p: with_rules(p, RULES.replace("upstream", "upsteam")),
            'unknown key "upsteam" in rule "gw" (did you mean "upstream"?)',
            id="rules",
        ),
        pytest.param(
            lambda p: replace(p, environ={"HOME": p.environ["HOME"]}),
            "set the environment variable GW_KEY",
            id="credential",
        ),
        pytest.param(
            lambda p: with_rules(p, RULES.replace("{env: GW_KEY}", "{command: ['false']}")),
            'has a helper "false" that failed with exit status 1',
            id="helper",
        ),
        pytest.param(
            lambda p: with_rules(p, RULES.replace("}}", "}, unused: {env: GW_KEY}}")),
            'credential "unused" is used by no rule',
            id="unused credential",
        ),
        pytest.param(
            lambda p: with_rules(
                p, RULES.replace("https://", "http://").replace("    auth", "    allow_http: true\n    auth")
            ),
            'rule "gw" sends its credential over plain http to gw.example.com',
            id="plain http",
        ),
        pytest.param(
            lambda p: with_config(p, "ssl_insecure: true\n"), "ssl_insecure would send", id="ssl_insecure"
        ),
        pytest.param(
            lambda p: with_config(p, "ignore_hosts: [anthropic]\n"),
            "ignore_hosts would let",
            id="ignore_hosts",
        ),
        pytest.param(
            lambda p: with_config(p, "gateway_rule: x\n"), 'did you mean "gateway_rules"?', id="option's name"
        ),
        pytest.param(
            lambda p: with_config(p, "gateway_capture: many\n"), "gateway_capture is not a size", id="option"
        ),
        pytest.param(
            lambda p: with_config(p, "gateway_reveal: true\n"), "shows and stores keys unmasked", id="reveal"
        ),
        pytest.param(
            lambda p: with_config(p, "listen_host: 0.0.0.0\n"), "listen_host is 0.0.0.0", id="listen_host"
        ),
        pytest.param(
            lambda p: with_env(p, HTTPS_PROXY="http://127.0.0.1:1", NO_PROXY="localhost,.anthropic.com"),
            "NO_PROXY names .anthropic.com, so requests to api.anthropic.com go past the gateway",
            id="NO_PROXY",
        ),
        pytest.param(
            lambda p: with_env(
                p, ANTHROPIC_BASE_URL="http://127.0.0.1:8080", HTTP_PROXY="http://proxy.example.com"
            ),
            "HTTP_PROXY would get what ANTHROPIC_BASE_URL sends to 127.0.0.1",
            id="HTTP_PROXY",
        ),
        pytest.param(
            lambda p: with_env(p, HTTPS_PROXY="http://127.0.0.1:8080"),
            "mitmproxy-ca-cert.pem is not there",
            id="no CA",
        ),
        pytest.param(
            lambda p: with_env(p, NODE_EXTRA_CA_CERTS="/nowhere.pem"),
            "NODE_EXTRA_CA_CERTS names /nowhere.pem, which is not there",
            id="CA file",
        ),
        pytest.param(
            lambda p: replace(p, mitmproxy="11.0.2"),
            "mitmproxy 11.0.2: mitmweb shows its flows",
            id="version",
        ),
        pytest.param(
            lambda p: with_env(p, ANTHROPIC_API_KEY="a", ANTHROPIC_AUTH_TOKEN="b"),
            "ANTHROPIC_API_KEY and ANTHROPIC_AUTH_TOKEN are both set",
            id="two keys",
        ),
        pytest.param(
            lambda p: with_settings(p, env={"ANTHROPIC_BASE_URL": "https://elsewhere"}),
            "sets ANTHROPIC_BASE_URL, which beats the shell",
            id="settings.json",
        ),
        pytest.param(
            lambda p: with_settings(p, forceLoginOrgUUID="x"),
            '"forceLoginOrgUUID" in',
            id="forceLogin",
        ),
    ],
)
def test_a_planted_fault_is_found(healthy: Patient, plant: Callable[[Patient], Patient], found: str) -> None:
    texts = faults(plant(healthy))
    assert [text for text in texts if found in text], texts


def test_files_that_others_may_write_or_read(healthy: Patient, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text(SECRET)
    key.chmod(0o644)
    with_rules(healthy, RULES.replace("{env: GW_KEY}", f"{{file: {key}}}"))
    ca_key = healthy.confdir / "mitmproxy-ca.pem"
    ca_key.write_text("key")
    ca_key.chmod(0o644)
    texts = faults(healthy)
    assert texts[0] == 'the file of credential "gw" can be read by other users'
    assert "others may read the key of the CA" in texts[1]
    healthy.rules.chmod(0o666)
    assert "others may write this file" in faults(healthy)[0]


def test_trust_of_clients_behind_an_https_proxy(healthy: Patient, authority: Authority) -> None:
    ca = healthy.confdir / "mitmproxy-ca-cert.pem"
    ca.write_bytes(authority.ca_file.read_bytes())
    patient = with_env(healthy, HTTPS_PROXY="http://127.0.0.1:8080", NODE_EXTRA_CA_CERTS=str(ca))
    # The CA of the tests lives a week, so that it also ends soon.
    assert faults(patient) == [
        f"{ca}: the certificate ends soon",
        "Python and curl do not trust the proxy's CA",
    ]


def test_a_port_that_another_program_has(healthy: Patient) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        taken.settimeout(10)
        port = taken.getsockname()[1]
        (text,) = faults(replace(healthy, port=port))
    assert text == f"port {port} is taken by another program"


@pytest.mark.e2e
def test_a_port_that_a_gateway_has(healthy: Patient, mitmdump: StartMitmdump) -> None:
    proxy = mitmdump(rules=RULES, modes=["reverse:https://api.anthropic.com"], env={"GW_KEY": SECRET})
    patient = replace(healthy, port=proxy.port)
    assert faults(patient) == []
    assert any(f"port {proxy.port} is served by a gateway" in each.text for each in findings(patient))


@pytest.mark.e2e
def test_the_command_prints_fixes_and_exits_with_1(tmp_path: Path) -> None:
    command = Command(tmp_path / "home")
    command.write_rules(RULES)
    done = command.run("doctor", "--port", str(unused_port()))
    assert done.returncode == 1
    assert (
        'FAULT  credential "gw" is not there: set the environment variable GW_KEY\n       fix: '
        in done.stdout
    )


def test_a_certificate_that_cannot_be_read_counts_as_ended(tmp_path: Path) -> None:
    broken = tmp_path / "ca.pem"
    broken.write_text("rubbish")
    assert doctor._ends_in(broken) == datetime.timedelta(0)
