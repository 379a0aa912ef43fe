"""The distribution: its commands, its source archive, and the hook for pre-commit."""

import importlib
import subprocess
import tomllib
from pathlib import PurePath

import yaml

from mitm_gateway.cli import main
from support.constants import ROOT, RULES_DATA

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
# Files for the repository alone.
NOT_IN_THE_ARCHIVE = {".ci", ".dockerignore", ".gitignore", ".pre-commit-config.yaml"}
ALWAYS_IN_IT = {"pyproject.toml"}


def test_both_commands_and_the_addon_script_exist() -> None:
    project = PROJECT["project"]
    assert set(project["scripts"]) == {"mitm-gateway", project["name"]}
    for place in project["scripts"].values():
        module, _, function = place.partition(":")
        assert getattr(importlib.import_module(module), function) is main
    (script,) = project["entry-points"]["mitmproxy_addon_launcher.addon_script"].values()
    assert (ROOT / "addon" / PurePath(*script.split("."))).with_suffix(".py").is_file()


def test_the_source_archive_is_complete() -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    tracked = {PurePath(line).parts[0] for line in listed.splitlines()}
    included = set(PROJECT["tool"]["hatch"]["build"]["targets"]["sdist"]["include"])
    assert tracked - NOT_IN_THE_ARCHIVE - ALWAYS_IN_IT == included


def test_the_wheel_contains_the_demos_rules() -> None:
    included = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    assert included == {"rules.yaml": "mitm_gateway/rules.yaml"}


def test_the_hook_for_pre_commit_checks_rules_files() -> None:
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    command, *arguments = hook["entry"].split()
    assert command in PROJECT["project"]["scripts"]
    assert main([*arguments, str(RULES_DATA / "good" / "smallest.yaml")]) == 0
    assert main([*arguments, str(RULES_DATA / "bad" / "alias-bomb.yaml")]) == 1
