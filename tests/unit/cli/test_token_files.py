"""Files for Envoy: whole, private, only where a secret changed, and a loud end where one cannot be had."""

import stat
from pathlib import Path

import pytest

from mitm_gateway.cli.token_files import Writer
from mitm_gateway.credentials.store import Credentials
from mitm_gateway.credentials.value import CredentialError
from mitm_gateway.rules.schema import Credential
from support.fixture_types import RunMain

RULES = """
credentials: {a: {file: FILE}}
rules:
  - {name: r, match: {host: x.test}, upstream: "https://h.test", auth: {scheme: basic, credential: a}}
"""


def names_in(folder: Path) -> list[str]:
    return [file.name for file in folder.iterdir()]


def test_once_writes_private_files_and_the_basic_form(run_main: RunMain, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("user:password\n")
    rules = tmp_path / "rules.yaml"
    rules.write_text(RULES.replace("FILE", str(tmp_path / "key")))
    rules.chmod(0o600)
    folder = tmp_path / "out"
    run_main("token-files", "--rules", rules, "--once", folder)
    assert {file.name: file.read_text() for file in folder.iterdir()} == {
        "a": "user:password",
        "a.basic": "dXNlcjpwYXNzd29yZA==",
    }
    assert {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {0o600}


def test_a_missing_secret_ends_the_command_and_names_the_credential(
    tmp_path: Path, run_main: RunMain
) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text(RULES.replace("FILE", str(tmp_path / "nowhere")))
    rules.chmod(0o600)
    told = run_main("token-files", "--rules", rules, "--once", tmp_path / "out", status=1).err
    assert 'credential "a"' in told


async def test_a_file_is_replaced_only_where_its_secret_changed(tmp_path: Path) -> None:
    key, folder = tmp_path / "key", tmp_path / "out"
    key.write_text("first")
    folder.mkdir()
    credentials = Credentials({"a": Credential(file=str(key))}, {})
    writer = Writer(folder, frozenset(), 60)
    await writer.refresh("a", credentials)
    first = (folder / "a").stat().st_ino
    await writer.refresh("a", credentials)
    assert (folder / "a").stat().st_ino == first
    key.write_text("second")
    await writer.refresh("a", credentials)
    assert (folder / "a").read_text() == "second"
    assert names_in(folder) == ["a"]


async def test_an_unusable_credential_keeps_its_old_file_for_a_while(tmp_path: Path) -> None:
    key, folder = tmp_path / "key", tmp_path / "out"
    key.write_text("first")
    folder.mkdir()
    credentials = Credentials({"a": Credential(file=str(key))}, {})
    clock = [0.0]
    writer = Writer(folder, frozenset(), 60, now=lambda: clock[0])
    await writer.refresh("a", credentials)
    key.unlink()
    await writer.refresh("a", credentials)
    clock[0] = 59.0
    await writer.refresh("a", credentials)
    assert (folder / "a").read_text() == "first"
    clock[0] = 61.0
    with pytest.raises(CredentialError, match='credential "a"'):
        await writer.refresh("a", credentials)
