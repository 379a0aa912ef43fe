"""The addon's start, options, reload and commands."""

import logging
import os
from pathlib import Path
from typing import Any

import pytest
from mitmproxy import exceptions
from mitmproxy.addons.mapremote import MapRemote
from mitmproxy.addons.proxyserver import Proxyserver
from mitmproxy.test import taddons

from mitm_gateway.mitm import lifecycle
from mitm_gateway.mitm.addon import GatewayAddon
from mitm_gateway.mitm.option_conflicts import broken_promises
from support.constants import GW
from support.hooks import RULES, answered, request_flow, sent, show_flows


async def test_helpers_use_the_gateways_proxy(addon: Any, context: Any) -> None:
    assert "MITM_GATEWAY_PROXY" not in os.environ
    context.configure(addon, gateway_proxy="http://proxy.test:1")
    assert os.environ["MITM_GATEWAY_PROXY"] == "http://proxy.test:1"
    context.configure(addon, gateway_proxy="env")
    assert "MITM_GATEWAY_PROXY" not in os.environ


async def test_every_request_before_the_start_is_503(rules: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifecycle, "START_PATIENCE_S", 0.01)
    addon = GatewayAddon()
    with taddons.context(addon) as context:
        context.configure(addon, gateway_rules=str(rules))
        flow = request_flow()
        await sent(addon, flow)
        assert flow.response is not None
        assert flow.response.status_code == 503


async def test_wrong_rules_at_start_are_logged_as_errors(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text("rules: []\n")
    addon = GatewayAddon()
    with taddons.context(addon) as context:
        context.configure(addon, gateway_rules=str(file))
        addon.running()
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR] == [
        f'{file}:1:8: "rules" is empty; expected at least one rule'
    ]


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("ssl_insecure", True),
        ("map_remote", ["|api.anthropic.com|evil.test"]),
        ("gateway_capture", "-1"),
        ("gateway_clients", "/nonexistent"),
        ("gateway_rules", "/nonexistent"),
    ],
)
async def test_an_option_that_undoes_a_promise_is_rolled_back(
    addon: Any, context: Any, option: str, value: Any
) -> None:
    before = getattr(context.options, option)
    with pytest.raises(exceptions.OptionsError):
        context.options.update(**{option: value})
    assert getattr(context.options, option) == before
    assert (await sent(addon, request_flow())).host == "gw.test"


async def test_options_that_the_user_did_not_set_get_defaults(context: Any) -> None:
    assert context.options.listen_host == "127.0.0.1"
    assert context.options.keep_host_header is True
    assert context.options.connection_strategy == "lazy"
    assert "tcp_timeout" not in context.options or context.options.tcp_timeout == 3600


async def test_no_redirected_host_is_dialled_while_the_program_starts(
    rules: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GW_KEY", GW)
    addon = GatewayAddon()
    with taddons.context(Proxyserver(), MapRemote(), addon) as context:
        context.configure(addon, gateway_rules=str(rules))
        assert context.options.connection_strategy == "lazy"  # the hook `running` was not called


async def test_a_reload_applies_the_reading_that_it_checked(
    addon: Any, context: Any, rules: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    def write(upstream: str) -> None:
        rules.write_text(RULES.replace("https://gw.test/base", upstream))

    def edit_in_between(*args: Any) -> Any:
        write("http://unchecked.test")
        return broken_promises(*args)

    monkeypatch.setattr(lifecycle, "broken_promises", edit_in_between)
    write("https://checked.test")
    assert context.master.commands.call("gateway.reload") == ["1 rule loaded"]
    assert (await sent(addon, request_flow())).host == "checked.test"


async def test_mitmproxys_commands_print_results(addon: Any, context: Any) -> None:
    call = context.master.commands.call
    assert call("gateway.rules") == ["1. gw: api.anthropic.com /v1/** → https://gw.test/base"]
    assert call("gateway.check") == ["no mistakes found"]
    assert call("gateway.reload") == ["1 rule loaded"]
    explained = call("gateway.explain", "https://api.anthropic.com/v1/messages")
    assert "  rule       gw (number 1 of 1)" in explained
    flow = request_flow()
    await sent(addon, flow)
    addon.response(flow)
    assert call("gateway.stats")[1].split()[0] == "gw"
    assert call("gateway.stats", "outcome")[0].split()[0] == "outcome"
    with pytest.raises(exceptions.CommandError, match="unknown day; expected one of rule-model, "):
        call("gateway.stats", "day")


async def test_prices_of_a_file_count_and_a_faulty_file_is_refused(
    addon: Any, context: Any, tmp_path: Path
) -> None:
    file = tmp_path / "prices.yaml"
    file.write_text("models: {gw-large: {input: 1, output: 2}}")
    context.configure(addon, gateway_prices=str(file))
    show_flows(context)
    flow = request_flow()
    await sent(addon, flow)
    answered(addon, flow, b'{"model":"gw-large","usage":{"input_tokens":11000,"output_tokens":7000}}')
    assert flow.comment.startswith("opus-4 11k→7k → gw-large, gw: ")
    assert flow.comment.endswith(", $0.0250")
    assert flow.metadata["gateway"]["cost_usd"] == 0.025
    assert context.master.commands.call("gateway.stats")[-1].split()[7] == "$0.0250"
    file.write_text("models: {gw-large: {input: 1}}")
    with pytest.raises(
        exceptions.OptionsError, match=r'gateway_prices: .*prices.yaml:1:10: "gw-large" has no "output"'
    ):
        context.configure(addon, gateway_prices=f"{tmp_path}/../{tmp_path.name}/prices.yaml")
