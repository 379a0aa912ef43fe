"""`mitm-gateway doctor`: it finds each planted fault and names the fix, and finds none in a sound configuration."""

import datetime
import json
import re
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from mitmproxy.addonmanager import AddonManager
from mitmproxy.proxy.layers.http import _http1

from mitm_gateway.cli.doctor import findings, network, trust, upstreams
from mitm_gateway.cli.doctor.finding import Fault, Note, Subject
from mitm_gateway.patches.table import PATCHES
from support.certificates import Authority
from support.command import Command
from support.company_proxy import Relay
from support.fixture_types import StartMitmdump
from support.program import unused_port

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
def sound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Subject:
    """A configuration without any fault; its upstream is not dialled."""
    monkeypatch.setattr(upstreams, "check", lambda ruleset, subject: iter(()))
    file = tmp_path / "rules.yaml"
    file.write_text(RULES)
    file.chmod(0o600)
    confdir = tmp_path / "mitmproxy"
    confdir.mkdir()
    home = tmp_path / "home"
    home.mkdir()
    return Subject(
        rules=file,
        environ={"GW_KEY": SECRET, "HOME": str(home)},
        port=unused_port(),
        confdir=confdir,
        project=tmp_path,
        mitmproxy="12.2.3",
    )


def faults_in(subject: Subject) -> list[Fault]:
    """Return the faults; each has a fix, and no finding contains the secret."""
    found = list(findings(subject))
    assert SECRET not in repr(found)
    faults = [finding for finding in found if isinstance(finding, Fault)]
    assert all(fault.fix for fault in faults)
    return faults


def faults(subject: Subject) -> list[str]:
    return [fault.text for fault in faults_in(subject)]


Plant = Callable[[Subject], Subject]


def with_env(subject: Subject, **variables: str) -> Subject:
    return replace(subject, environ={**subject.environ, **variables})


def with_rules(subject: Subject, text: str) -> Subject:
    assert subject.rules
    subject.rules.write_text(text)
    return subject


def rules(old: str, new: str) -> Plant:
    """Change a part of the rules."""
    return lambda subject: with_rules(subject, RULES.replace(old, new))


def config(text: str) -> Plant:
    """Write mitmproxy's configuration file."""

    def plant(subject: Subject) -> Subject:
        (subject.confdir / "config.yaml").write_text(f"{text}\n")
        return subject

    return plant


def env(**variables: str) -> Plant:
    """Set variables."""
    return lambda subject: with_env(subject, **variables)


def settings(**data: object) -> Plant:
    """Write Claude Code's settings."""

    def plant(subject: Subject) -> Subject:
        file = Path(subject.environ["HOME"]) / ".claude" / "settings.json"
        file.parent.mkdir()
        file.write_text(json.dumps(data))
        return subject

    return plant


def test_a_sound_configuration_has_no_faults(sound: Subject) -> None:
    assert faults(sound) == []


def test_a_credential_is_shown_by_its_fingerprint(sound: Subject) -> None:
    texts = [finding.text for finding in findings(sound)]
    assert any(text.startswith('credential "gw" has a value, fingerprint ') for text in texts)


def test_one_line_counts_the_patches_and_more_are_printed_on_request(sound: Subject) -> None:
    texts = [finding.text for finding in findings(sound) if re.search("^patch |patches to", finding.text)]
    assert texts == [f"{len(PATCHES)} of {len(PATCHES)} patches to mitmproxy are on"]
    listed = [finding.text for finding in findings(replace(sound, lists_patches=True))]
    assert [text for text in listed if text.startswith("patch ")] == [
        f"patch {patch.name} ({patch.kind}) fixes: {patch.why}" for patch in PATCHES
    ]


def test_a_speed_patch_that_does_not_fit_is_noted_and_not_counted(
    sound: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AddonManager, "trigger_event", lambda self: None)
    found = list(findings(sound))
    [note] = [finding for finding in found if isinstance(finding, Note)]
    assert note.text.startswith("patch hook-table not applied")
    assert not [finding for finding in found if isinstance(finding, Fault)]
    assert f"{len(PATCHES) - 1} of {len(PATCHES)} patches to mitmproxy are on" in [
        each.text for each in found
    ]


def test_a_mitmweb_without_a_login_is_noted_and_not_counted(sound: Subject) -> None:
    found = list(findings(replace(sound, mitmproxy="11.0.2")))
    [note] = [finding for finding in found if isinstance(finding, Note)]
    assert note.text.startswith("mitmproxy 11.0.2: mitmweb has no login")
    assert "Python 3.12" in note.advice
    assert not [finding for finding in found if isinstance(finding, Fault)]


def test_all_unset_variables_of_the_rules_have_one_fix(sound: Subject) -> None:
    with_rules(sound, RULES.replace("https://gw.example.com", "https://${GW_HOST}/${GW_PATH}") + "extra: 1\n")
    found = faults_in(sound)
    assert ["export" in fault.fix for fault in found] == [False, True]
    assert found[1].fix.startswith("export GW_HOST=…")


def test_mistakes_in_the_environment_form_name_the_variables(sound: Subject) -> None:
    form = {"HOME": sound.environ["HOME"], "ANTHROPIC_AUTH_MODE": "basic"}
    found = faults_in(replace(sound, rules=None, environ=form))
    assert [fault.fix for fault in found] == [
        "correct ANTHROPIC_AUTH_MODE",
        "export ANTHROPIC_BASE_URL=… ANTHROPIC_API_KEY=…",
    ]


def test_a_safety_patch_that_does_not_fit_is_a_fault(sound: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(_http1, "make_error_response")
    assert [text.partition(":")[0] for text in faults(sound)] == ["patch json-error-pages not applied"]


PROXY, GATEWAY = "http://proxy.example.com", "http://127.0.0.1:8080"
TOKEN = """{command: [echo, '{"token": "t", "api": "https://api.business.example.com"}']}"""
PLANTED: dict[str, tuple[Plant, str]] = {
    "rules": (rules("upstream", "upsteam"), 'unknown key "upsteam" in rule "gw" (did you mean "upstream"?)'),
    "no rules": (lambda subject: replace(subject, rules=subject.project / "none"),
        "none: there is no such file; write one with `mitm-gateway init PRESET`"),
    "credential": (env(GW_KEY=""), "the environment variable GW_KEY is not set; export GW_KEY=…"),
    "helper": (rules("{env: GW_KEY}", f"{{command: ['false', --token={SECRET}]}}"),
        'helper "false" failed with exit status 1; run false by hand with its arguments; its output names the cause'),
    "host of the token": (rules("{env: GW_KEY}", TOKEN),
        'rule "gw" sends credential "gw" to gw.example.com, but the token is for api.business.example.com'),
    "unused credential": (rules("}}", "}, unused: {env: GW_KEY}}"), 'credential "unused" is used by no rule'),
    "plain http": (rules("https://gw.example.com", "http://gw.example.com\n    allow_http: true"),
        'rule "gw" sends its credential over plain http to gw.example.com'),
    "ssl_insecure": (config("ssl_insecure: true"), "ssl_insecure would send"),
    "ignore_hosts": (config("ignore_hosts: [anthropic]"), "ignore_hosts would let"),
    "option's name": (config("gateway_rule: x"), 'did you mean "gateway_rules"?'),
    "option": (config("gateway_capture: many"), "gateway_capture is not a size"),
    "reveal": (config("gateway_reveal: true"), "shows and stores keys unmasked"),
    "listen_host": (config("listen_host: 0.0.0.0"), "listen_host is 0.0.0.0"),
    "NO_PROXY": (env(HTTPS_PROXY="http://127.0.0.1:1", NO_PROXY="localhost,.anthropic.com"),
        "NO_PROXY names .anthropic.com, so requests to api.anthropic.com bypass the gateway"),
    "HTTP_PROXY": (env(ANTHROPIC_BASE_URL=GATEWAY, HTTP_PROXY=PROXY),
        "HTTP_PROXY would receive the requests that ANTHROPIC_BASE_URL sends to 127.0.0.1"),
    "HTTP_PROXY of another client": (env(GOOGLE_GEMINI_BASE_URL=GATEWAY, HTTP_PROXY=PROXY),
        "HTTP_PROXY would receive the requests that GOOGLE_GEMINI_BASE_URL sends to 127.0.0.1"),
    "no CA": (env(HTTPS_PROXY=GATEWAY), "mitmproxy-ca-cert.pem does not exist"),
    "CA file": (env(NODE_EXTRA_CA_CERTS="/nowhere.pem"),
        "NODE_EXTRA_CA_CERTS is not a file of certificate authorities: /nowhere.pem: No such file or directory"),
    "two keys": (env(ANTHROPIC_API_KEY="a", ANTHROPIC_AUTH_TOKEN="b"),
        "ANTHROPIC_API_KEY and ANTHROPIC_AUTH_TOKEN are both set"),
    "settings.json": (settings(env={"ANTHROPIC_BASE_URL": "https://elsewhere"}),
        "sets ANTHROPIC_BASE_URL, which overrides the shell"),
    "forceLogin": (settings(forceLoginOrgUUID="x"), '"forceLoginOrgUUID" in'),
}  # fmt: skip


@pytest.mark.parametrize(("plant", "found"), PLANTED.values(), ids=PLANTED)
def test_a_planted_fault_is_found(sound: Subject, plant: Plant, found: str) -> None:
    texts = [f"{fault.text}; {fault.fix}" for fault in faults_in(plant(sound))]
    assert [text for text in texts if found in text], texts


def test_installed_client_programs_are_named_with_the_command_that_proves_them(
    sound: Subject, tmp_path: Path
) -> None:
    for name in ("claude", "gemini", "llm", "pi", "qwen"):
        (tmp_path / name).touch(mode=0o755)
    found = [repr(each) for each in findings(with_env(sound, PATH=str(tmp_path))) if " found: " in repr(each)]
    assert len(found) == 5
    assert "Claude Code found: `mitm-gateway run claude -p hi` sends one request" in found[0]
    assert "Gemini CLI found: no rule covers the API that its test command calls" in found[1]
    assert "llm found: no rule covers the API" in found[2]
    assert "pi found: `mitm-gateway run --intercept -- pi --provider anthropic " in found[3]
    assert "Qwen Code found: no rule covers the API" in found[4]


def test_files_that_other_users_can_write_or_read_are_faults(sound: Subject, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text(SECRET)
    key.chmod(0o644)
    with_rules(sound, RULES.replace("{env: GW_KEY}", f"{{file: {key}}}"))
    ca_key = sound.confdir / "mitmproxy-ca.pem"
    ca_key.write_text("key")
    ca_key.chmod(0o644)
    texts = faults(sound)
    assert texts[0] == 'other users can read the file of credential "gw"'
    assert "other users can read the key of the CA" in texts[1]
    assert sound.rules
    sound.rules.chmod(0o666)
    assert "others may write this file" in faults(sound)[0]


def test_clients_behind_an_https_proxy_must_trust_its_ca(
    sound: Subject, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trust, "_CA_WARNING", datetime.timedelta(days=10_000))
    ca = sound.confdir / "mitmproxy-ca-cert.pem"
    ca.write_bytes(authority.ca_file.read_bytes())
    subject = with_env(sound, HTTPS_PROXY="http://127.0.0.1:8080", NODE_EXTRA_CA_CERTS=str(ca))
    assert faults(subject) == [
        f"{ca}: the certificate expires soon",
        "Python and curl do not trust the proxy's CA",
    ]


def test_a_port_taken_by_another_program_is_a_fault(sound: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "_TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        taken.settimeout(10)
        port = taken.getsockname()[1]
        (text,) = faults(replace(sound, port=port))
    assert text == f"port {port} is taken by another program"


@pytest.mark.e2e
def test_a_port_served_by_a_gateway_is_not_a_fault(sound: Subject, mitmdump: StartMitmdump) -> None:
    proxy = mitmdump(rules=RULES, modes=["reverse:https://api.anthropic.com"], env={"GW_KEY": SECRET})
    subject = replace(sound, port=proxy.port)
    assert faults(subject) == []
    assert any(f"port {proxy.port} is served by a gateway" in each.text for each in findings(subject))


@pytest.mark.e2e
@pytest.mark.parametrize("mode", ["regular", "reverse:http://127.0.0.1:1"])
def test_a_gateways_port_is_recognised_in_every_mode_and_with_client_keys(
    mitmdump: StartMitmdump, tmp_path: Path, mode: str
) -> None:
    keys = tmp_path / "keys"
    keys.write_text("client-key-0123456789\n")
    for options in ((), ("--set", f"gateway_clients={keys}")):
        proxy = mitmdump(*options, rules=RULES, modes=[mode], env={"GW_KEY": SECRET})
        assert network.is_gateway_port(proxy.port), (mode, options)


def test_a_companys_proxy_is_not_taken_for_the_gateway(sound: Subject) -> None:
    with Relay(answer=b"HTTP/1.1 400 Bad request\r\n\r\n") as relay:
        for url in ("http://u:p@proxy.example.com:3128", f"http://127.0.0.1:{relay.port}"):
            assert faults(with_env(sound, HTTPS_PROXY=url, NO_PROXY=".anthropic.com")) == []


@pytest.mark.e2e
def test_the_command_prints_fixes_and_exits_with_1(tmp_path: Path) -> None:
    command = Command(tmp_path / "home")
    command.write_rules(RULES)
    done = command.run("doctor", "--port", str(unused_port()))
    assert done.returncode == 1
    assert 'FAULT  credential "gw": the environment variable GW_KEY is not set\n       fix: ' in done.stdout


def test_an_unreadable_certificate_counts_as_expired(tmp_path: Path) -> None:
    broken = tmp_path / "ca.pem"
    broken.write_text("rubbish")
    assert trust.time_left(broken) == datetime.timedelta(0)
