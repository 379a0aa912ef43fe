"""mitmproxy's configuration, read before a process of the gateway starts with it."""

from pathlib import Path

from mitm_gateway.cli.mitmproxy_options import config_fault
from support.table import table


@table(
    ("text", "fault"),
    [
        ("", None),
        (
            "onboarding: true\nlisten_port: 8080\ngateway_log: [1]\n",
            None,
        ),  # reported with the gateway's own options
        ("# a comment\nlisten_port: abc\n", ":2: listen_port is not a whole number"),
        ("mode: 5\n", ":1: mode is not a list of texts"),
        ("listen_host: [1]\n", ":1: listen_host is not a text that is given once"),
        ("[1, 2]\n", ": expected one option a line, as NAME: VALUE"),
    ],
)
def test_a_value_of_a_wrong_type_is_reported_with_its_line(
    tmp_path: Path, text: str, fault: str | None
) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(text)
    assert config_fault(file) == (fault and f"{file}{fault}")


def test_a_configuration_that_does_not_exist_has_no_fault(tmp_path: Path) -> None:
    assert config_fault(tmp_path / "config.yaml") is None
