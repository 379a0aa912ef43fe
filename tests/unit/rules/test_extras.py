"""The command that installs an extra fits the environment."""

import shlex
import tomllib
from pathlib import Path

import pytest

from mitm_gateway.rules.extras import PACKAGES, installing
from support.constants import ROOT


def test_the_packages_are_those_of_the_project() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {name: list(packages) for name, packages in PACKAGES.items()} == {
        name: packages for name, packages in declared.items() if name != "speed"
    }


@pytest.mark.parametrize(
    ("folder", "files", "expected"),
    [
        ("clone/.venv", {"pyvenv.cfg": "home = /usr/bin\n"}, "/a/python -m pip install 'botocore>=1.34'"),
        ("pipx/venvs/mitmproxy-gateway", {"pipx_metadata.json": "{}"}, "pipx inject mitmproxy-gateway 'botocore>=1.34'"),
        ("tools/mitmproxy-gateway", {"pyvenv.cfg": "home = /usr/bin\nuv = 0.9\n"},
         "uv pip install --python /a/python 'botocore>=1.34'"),
        ("cache/uv/archive-v0/abc", {"pyvenv.cfg": "uv = 0.9\n"}, "uvx --with 'botocore>=1.34' with the rest"),
    ],
    ids=["pip", "pipx", "uv", "uvx"],
)  # fmt: skip
def test_the_command_fits_the_installation(
    tmp_path: Path, folder: str, files: dict[str, str], expected: str
) -> None:
    prefix = tmp_path / folder
    prefix.mkdir(parents=True)
    for name, text in files.items():
        (prefix / name).write_text(text)
    assert installing("aws", prefix, "/a/python").startswith(expected)


def test_a_path_with_blanks_is_quoted(tmp_path: Path) -> None:
    words = shlex.split(installing("otel", tmp_path, "/a b/python"))
    assert words == ["/a b/python", "-m", "pip", "install", *PACKAGES["otel"]]
