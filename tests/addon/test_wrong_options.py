"""A wrong value for an option of the gateway, or a misspelt name, ends the start with a line that names it."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from mitmproxy.addonmanager import Loader
from mitmproxy.exceptions import OptionsError
from mitmproxy.test import taddons

from mitm_gateway.mitm.options import Settings, add_options, take_out_faults
from support.constants import GATEWAY

FAULTS = {
    "gateway_keep=x": "gateway_keep is not a whole number",
    "gateway_keep=-1": "gateway_keep is negative; expected a number, or 0 for all",
    "gateway_reveal=maybe": "gateway_reveal is not true or false",
    "gateway_fast=2": "gateway_fast is not true or false",
    "gateway_otel=on": "gateway_otel is not true or false",
    "gateway_intercept=some": "gateway_intercept is not one of all, rules",
    "gateway_kep=3": 'unknown option "gateway_kep" (did you mean "gateway_keep"?)',
    "gateway_x=3": 'unknown option "gateway_x"',
    "gateway_capture=much": "gateway_capture is not a size",
    "gateway_view_limit=": "gateway_view_limit is not a size",
    "gateway_proxy=nonsense://": "gateway_proxy",
    "gateway_metrics=nowhere": "gateway_metrics is not an address to listen on",
    "gateway_clients=/nowhere": "gateway_clients: /nowhere",
    "gateway_origins=null": "gateway_origins contains an invalid origin",
    "gateway_hosts=a/b": "gateway_hosts contains an invalid host name",
}


def faults_of(context: taddons.context) -> list[str]:
    """Return the faults that the gateway reports when it is loaded."""
    add_options(Loader(context.master))
    if faults := take_out_faults(context.options):
        return faults
    context.options.process_deferred()
    try:
        Settings.read(context.options, None)
    except OptionsError as fault:
        return [str(fault)]
    return []


@pytest.mark.parametrize(("assignment", "line"), FAULTS.items(), ids=FAULTS)
async def test_a_wrong_option_is_named(assignment: str, line: str) -> None:
    with taddons.context() as context:
        context.options.set(assignment, defer=True)
        faults = faults_of(context)
    assert len(faults) == 1
    assert faults[0].startswith(line)


@pytest.mark.parametrize(
    "given", [{"gateway_keep": 3, "gateway_reveal": True}, {"gateway_rules": "x.yaml", "other_option": 1}]
)
async def test_right_values_of_a_configuration_file_are_taken(given: dict[str, Any]) -> None:
    with taddons.context() as context:
        context.options.update_defer(**given)
        assert faults_of(context) == []
        assert all(getattr(context.options, name) == given[name] for name in given if "gateway" in name)


@pytest.mark.e2e
@pytest.mark.parametrize("errors", [subprocess.PIPE, subprocess.STDOUT], ids=["alone", "with the log"])
def test_mitmdump_ends_with_the_reasons_on_standard_error(tmp_path: Path, errors: int) -> None:
    (tmp_path / "config.yaml").write_text("gateway_keep: many\ngateway_kep: 1\n")
    (tmp_path / "rules.yaml").write_text("rules: []\n")
    command = [str(Path(sys.executable).with_name("mitmdump")), "--set", f"confdir={tmp_path}", "-p", "0"]
    done = subprocess.run(
        [*command, "-s", str(GATEWAY), "--set", "gateway_rules=rules.yaml"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=errors, text=True, timeout=60, check=False,
    )  # fmt: skip
    said = done.stdout if errors == subprocess.STDOUT else done.stderr
    assert done.returncode == 1
    reasons = ("gateway_keep is not a whole number", 'unknown option "gateway_kep"', "rules.yaml:1:8:")
    assert [said.count(reason) for reason in reasons] == [1, 1, 1], said
    assert "Traceback" not in said
