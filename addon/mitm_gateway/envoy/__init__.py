"""The same rules for Envoy: a RuleSet becomes configuration files that contain no secret."""

from .bootstrap import files
from .export_options import Listener, Options
from .unsupported import find_unsupported

__all__ = ["Listener", "Options", "files", "find_unsupported"]
