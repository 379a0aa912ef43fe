"""Proxy variables, exceptions and trusted authorities of an intercepted client."""

from pathlib import Path

from mitm_gateway.clients import network
from mitm_gateway.clients.ca_settings import configured_ca_files
from mitm_gateway.rules.load import parse_rules
from mitm_gateway.rules.patterns import HostPattern
from support.certificates import Authority
from support.table import table

PROXY = "http://127.0.0.1:1234"
BUNDLE = Path("/bundle.pem")
RULES = parse_rules(b"rules: [{match: {host: api.anthropic.com}}]", "rules.yaml", {})
ALWAYS = set(network.CA_ALWAYS)


@table(
    ("before", "after"),
    [
        ({}, "127.0.0.1,localhost,::1"),
        ({"NO_PROXY": "corp.test, localhost"}, "corp.test,localhost,127.0.0.1,::1"),
        ({"no_proxy": "a.test", "NO_PROXY": "b.test"}, "a.test,b.test,127.0.0.1,localhost,::1"),
        ({"NO_PROXY": "corp.test,anthropic.com"}, "corp.test,127.0.0.1,localhost,::1"),
        ({"NO_PROXY": "*"}, "127.0.0.1,localhost,::1"),
    ],
)
def test_no_proxy_keeps_its_entries_and_loopback_but_no_host_of_a_rule(
    before: dict[str, str], after: str
) -> None:
    found = network.proxied(RULES, PROXY, BUNDLE, before)
    assert found["NO_PROXY"] == found["no_proxy"] == after


def test_a_rule_about_this_machine_makes_its_requests_use_the_proxy() -> None:
    rules = parse_rules(b"rules: [{match: {host: 'localhost:8000'}}]", "rules.yaml", {})
    assert network.no_proxy({}, rules)["NO_PROXY"] == "127.0.0.1,::1"


def test_ca_variables_are_set_always_or_only_where_the_user_has_them() -> None:
    bare = network.proxied(RULES, PROXY, BUNDLE, {})
    assert {name for name in network.CA_VARIABLES if name in bare} == ALWAYS | configured_ca_files({}).keys()
    own = dict.fromkeys(network.CA_VARIABLES, "/corp.pem")
    found = network.proxied(RULES, PROXY, BUNDLE, own)
    assert {found[name] for name in network.CA_VARIABLES} == {str(BUNDLE)}


def test_the_bundle_has_each_certificate_once_the_users_own_included(tmp_path: Path) -> None:
    ca, corp = (Authority(tmp_path).ca_file.rename(tmp_path / f"{name}.pem") for name in ("ca", "corp"))
    environ = {"AWS_CA_BUNDLE": str(corp), "SSL_CERT_FILE": str(corp), "PIP_CERT": str(tmp_path / "gone")}
    bundle = network.ca_bundle(ca, environ)
    for file in (ca, corp):
        assert bundle.count(file.read_bytes().strip()) == 1
    assert bundle.count(b"BEGIN CERTIFICATE") > 100


def test_files_of_the_users_configuration_are_in_the_bundle_and_their_variables_name_it(
    tmp_path: Path,
) -> None:
    corp = Authority(tmp_path).ca_file.rename(tmp_path / "corp.pem")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "npm").touch(mode=0o755)
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "npmrc").write_text("fund=false\ncafile=/overridden.pem\n")
    (tmp_path / ".npmrc").write_text("; cafile = /comment\ncafile = ${HOME}/corp.pem\n")
    (tmp_path / ".gitconfig").write_text('[http]\n\tsslCAInfo = "~/corp.pem"\n')
    (tmp_path / ".pip").mkdir()
    (tmp_path / ".pip" / "pip.conf").write_text("[global]\ncert = /gone.pem\n")
    environ = {"HOME": str(tmp_path), "PATH": str(tmp_path / "bin")}
    assert configured_ca_files(environ) == {
        "npm_config_cafile": f"{tmp_path}/corp.pem",
        "GIT_SSL_CAINFO": f"{tmp_path}/corp.pem",
        "PIP_CERT": "/gone.pem",
    }
    assert network.ca_bundle(corp, environ).count(corp.read_bytes().strip()) == 1
    assert network.ca_bundle(Path("/none"), environ).count(corp.read_bytes().strip()) == 1
    found = network.proxied(RULES, PROXY, BUNDLE, environ)
    assert {found["npm_config_cafile"], found["PIP_CERT"]} == {str(BUNDLE)}


def test_ca_files_without_a_certificate_are_named_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    (tmp_path / "text").write_text("not PEM")
    environ = {"SSL_CERT_FILE": f"{tmp_path}/empty", "PIP_CERT": f"{tmp_path}/text", "DENO_CERT": "/gone"}
    assert dict(network.unusable_ca_files(environ)) == {
        "SSL_CERT_FILE": f"{tmp_path}/empty: the file is empty",
        "PIP_CERT": f"{tmp_path}/text: no PEM certificate in it",
        "DENO_CERT": "/gone: No such file or directory",
    }


@table(
    ("entry", "host", "hit"),
    [
        ("*", "api.anthropic.com", True),
        ("anthropic.com", "api.anthropic.com", True),
        (".anthropic.com", "api.anthropic.com", True),
        ("*.anthropic.com", "api.anthropic.com", True),
        ("api.anthropic.com:443", "api.anthropic.com", True),
        ("thropic.com", "api.anthropic.com", False),
        ("localhost", "api.anthropic.com", False),
        ("::1", "api.anthropic.com", False),
    ],
)
def test_an_entry_of_no_proxy_covers_a_name_and_the_names_below_it(entry: str, host: str, hit: bool) -> None:
    assert network.excepts(entry, HostPattern.parse(host)) is hit
