"""The script for `mitmdump -s addon/gateway.py`. It holds nothing: a name here could be taken for a hook."""

from pathlib import Path

from mitm_gateway.mitm.addon import GatewayAddon

addons = [GatewayAddon(default_rules=Path(__file__).resolve().parent.parent / "rules.yaml")]
