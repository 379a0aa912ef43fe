"""The script for `mitmdump -s` where the package is installed; alone here, since its folder goes on sys.path."""

import logging
import sys

try:
    from mitm_gateway import GatewayAddon
    from mitm_gateway.cli.common import default_rules
except ImportError as fault:
    # An error that is logged at start ends mitmproxy; while it runs, requests are refused from now on.
    logging.error(  # noqa: TRY400 - one line with the cure instead of a traceback
        "gateway.py: %s; this mitmproxy runs on %s, where mitmproxy-gateway is not installed. "
        "Use `mitm-gateway serve` instead, which starts the mitmproxy that fits", fault, sys.executable,
    )  # fmt: skip
    addons = []
else:
    addons = [GatewayAddon(default_rules=default_rules())]
