"""The gateway as a child process: its output tells why it did not start."""

import os
import socket
from pathlib import Path

import pytest

from mitm_gateway.cli.gateway_process import GatewayError, GatewayProcess, free_ports

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize("place", ["listener", "page"])
def test_a_port_that_was_taken_meanwhile_is_noticed(place: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        ports = {name: free_ports(1)[0] for name in ("listener", "page")} | {place: taken.getsockname()[1]}
        options = ["--listen-host", "127.0.0.1", "-p", str(ports["listener"]), "--no-web-open-browser"]
        options += ["--web-port", str(ports["page"]), "--set", f"confdir={tmp_path}"]
        with GatewayProcess(options, 1, tmp_path / "log", os.environ, web=True) as gateway:
            with pytest.raises(GatewayError):
                gateway.wait_until_ready(None)
            assert gateway.lost_a_port()
