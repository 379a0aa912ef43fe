"""The same rules for Envoy: a RuleSet becomes the text of configuration files; no file is read, no secret is near."""

from .checks import check
from .envoy import files
from .options import Listener, Options

__all__ = ["Listener", "Options", "check", "files"]
