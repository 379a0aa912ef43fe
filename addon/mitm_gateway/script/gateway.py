"""The script for `mitmdump -s` where the package is installed; alone here, since its folder goes on sys.path."""

from mitm_gateway.cli import default_rules
from mitm_gateway.mitm.addon import GatewayAddon

addons = [GatewayAddon(default_rules=default_rules())]
