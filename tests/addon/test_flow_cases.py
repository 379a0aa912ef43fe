"""`mitm-gateway flows --cases`: rules applied to recorded requests."""

from pathlib import Path

import pytest

from support.constants import CK
from support.fixture_types import RunMain
from support.one_rule import one_rule
from support.recordings import talked, turn, write


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    flows = [talked(turn("hi")), talked(turn("hi", "hello", "more")), talked(turn("x", model="other"))]
    found = {"talk": str(write(tmp_path / "talk.mitm", flows))}
    for name, credential, model in (
        ("now", "gw", "gw-large"), ("new", "gw", "gw-small"), ("own", "client", "m"),
    ):  # fmt: skip
        path = tmp_path / f"{name}.yaml"
        auth = f"{{scheme: bearer, credential: {credential}}}"
        path.write_text(
            one_rule("https://gw.test/base", f"models: {{map: {{claude-opus-4-8: {model}}}}}", auth=auth)
        )
        path.chmod(0o600)
        found[name] = str(path)
    return found


def test_each_outcome_is_printed_once(files: dict[str, str], run_main: RunMain) -> None:
    seen = run_main("flows", files["talk"], "--cases", "--rules", files["now"])
    lines = seen.out.splitlines()
    heads = [line for line in lines if not line.startswith(" ")]
    assert heads == [
        "POST https://api.anthropic.com/v1/messages (request 1 and 1 more)",
        "POST https://api.anthropic.com/v1/messages (request 3)",
    ]
    assert "  upstream   https://gw.test/base/v1/messages" in lines
    assert "  model      claude-opus-4-8 → gw-large" in lines
    assert "  auth       x-api-key → bearer (credential gw)" in lines
    assert CK not in seen.out


def test_a_refusal_is_a_fault(files: dict[str, str], run_main: RunMain) -> None:
    # The client's Anthropic key would go to another vendor, which the recorded request still shows.
    seen = run_main("flows", files["talk"], "--cases", "--rules", files["own"], status=1)
    assert "  refused    403: an Anthropic key does not go to another vendor" in seen.out


def test_two_files_are_compared(files: dict[str, str], run_main: RunMain) -> None:
    arguments = ["flows", files["talk"], "--cases", "--rules", files["now"], "--against"]
    seen = run_main(*arguments, files["new"], status=1)
    assert seen.out.splitlines() == [
        "POST https://api.anthropic.com/v1/messages (request 1 and 1 more)",
        "-   model      claude-opus-4-8 → gw-large",
        "+   model      claude-opus-4-8 → gw-small",
    ]
    assert seen.err.splitlines()[-1] == f"mitm-gateway: 2 of 3 requests differ under {files['new']}"
    assert run_main(*arguments, files["now"]).out == ""


def test_a_body_that_a_rule_cannot_read_is_a_refusal(
    files: dict[str, str], tmp_path: Path, run_main: RunMain
) -> None:
    talk = write(tmp_path / "odd.mitm", [talked(b'{"model": "a", "model": "b"}')])
    assert "  refused    400: " in run_main("flows", talk, "--cases", "--rules", files["now"], status=1).out


def test_rules_without_cases_are_wrong_usage(files: dict[str, str], run_main: RunMain) -> None:
    seen = run_main("flows", files["talk"], "--rules", files["now"], status=2)
    assert seen.err == "mitm-gateway: --rules requires --cases\n"
