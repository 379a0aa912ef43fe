"""The script for `mitmdump -s addon/gateway.py`. A name defined here could be taken for a hook, so few are."""

import logging
import sys
from pathlib import Path

try:
    from mitm_gateway import GatewayAddon
except ImportError as fault:
    # An error that is logged at start ends mitmproxy; while it runs, requests are refused from now on.
    logging.error(  # noqa: TRY400 - one line with the cure instead of a traceback
        "addon/gateway.py: %s; this mitmproxy runs on %s. Start the gateway with `make run`, or install its "
        "packages there: %s -m pip install pydantic pyyaml", fault, sys.executable, sys.executable,
    )  # fmt: skip
    addons = []
else:
    addons = [GatewayAddon(default_rules=Path(__file__).resolve().parent.parent / "rules.yaml")]
