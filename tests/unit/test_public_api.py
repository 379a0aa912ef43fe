"""The package's public names: documented, imported on first use, and usable without mitmproxy."""

import subprocess
import sys
import tomllib

import pytest

import mitm_gateway
from support.constants import ADDON, ROOT
from support.table import table

PUBLIC = ("load_rules", "RulesError", "RuleSet", "explain", "GatewayAddon")
WITHOUT_MITMPROXY = """
import sys
from pathlib import Path
import mitm_gateway
assert not {"yaml", "pydantic", "mitmproxy"} & set(sys.modules), "importing the package imports its dependencies"
rules = mitm_gateway.load_rules(Path(sys.argv[1]), {"GATEWAY_URL": "https://gw.example.com"})
assert isinstance(rules, mitm_gateway.RuleSet)
print(*mitm_gateway.explain(rules, "POST", "https://api.anthropic.com/v1/messages", (), "claude").lines(), sep="\\n")
assert "mitmproxy" not in sys.modules, "the rules import mitmproxy"
"""


@table("name", PUBLIC)
def test_a_public_name_is_exported_and_documented(name: str) -> None:
    assert name in mitm_gateway.__all__
    assert f"- `{name}" in (mitm_gateway.__doc__ or "")
    assert getattr(mitm_gateway, name).__doc__


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nothing"):
        mitm_gateway.nothing  # noqa: B018


def test_rules_are_loaded_and_explained_without_mitmproxy() -> None:
    command = [sys.executable, "-c", WITHOUT_MITMPROXY, str(ROOT / "rules.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ADDON, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "https://gw.example.com" in done.stdout


def test_the_version_is_defined_once() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["dynamic"] == ["version"]
    assert (ROOT / project["tool"]["hatch"]["version"]["path"]).samefile(mitm_gateway.__file__)
