"""Wrong calls of `export` get a message with the option and the expected value, never a traceback."""

from pathlib import Path

import pytest

from support.fixture_types import RunMain

RULES = """\
rules:
  - match: {host: api.anthropic.com}
    upstream: https://gw.test
"""


@pytest.fixture
def call(tmp_path: Path) -> list[str]:
    rules = tmp_path / "rules.yaml"
    rules.write_text(RULES)
    rules.chmod(0o600)
    return ["export", "envoy", "--rules", str(rules), "-o", str(tmp_path / "out")]


@pytest.mark.parametrize(
    ("option", "text", "told"),
    [
        ("--admin", "nope", '--admin "nope": not a port number'),
        ("--metrics", "x:y", '--metrics "x:y": '),
        ("--body-limit", "lots", '--body-limit "lots": is not a size; expected a form such as'),
        ("--gateway-host", "https://x/", '--gateway-host "https://x/": not a host name or address'),
        ("--origin", "nope", '--origin "nope": not an origin; expected one such as "https://app'),
        ("--listen", "9901", "127.0.0.1:9901 is given twice; expected one for each of --listen, --admin"),
    ],
)
def test_a_wrong_option_is_named(
    call: list[str], run_main: RunMain, option: str, text: str, told: str
) -> None:
    assert run_main(*call, option, text, status=2).err.startswith(f"mitm-gateway: {told}")


def test_a_port_serves_at_two_addresses(run_main: RunMain, call: list[str]) -> None:
    run_main(*call, "--listen", "127.0.0.1:8080", "--listen", "[::1]:8080=other.test")


@pytest.mark.parametrize("command", [["export", "envoy", "-o"], ["token-files"]])
def test_a_folder_that_cannot_be_made_is_a_fault_and_no_traceback(
    call: list[str], tmp_path: Path, run_main: RunMain, command: list[str]
) -> None:
    taken = tmp_path / "file"
    taken.touch()
    told = run_main(*command, taken / "folder", "--rules", call[3], status=1).err
    assert told == f"mitm-gateway: {taken / 'folder'}: Not a directory\n"
