"""The AWS region, as the AWS tools find it."""

import configparser
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from ..read_file import FileError, read_regular_file

DEFAULT_REGION: Final = "us-east-1"
_MAX_CONFIG_BYTES = 1024 * 1024


def aws_region(environ: Mapping[str, str]) -> str:
    """Return the region of the environment, else of the profile in AWS's config file, else us-east-1."""
    named = environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION")
    return named or profile_region(environ) or DEFAULT_REGION


def profile_region(environ: Mapping[str, str]) -> str | None:
    """Return the region of the selected profile; None without a readable config file that sets one."""
    parser = configparser.RawConfigParser(strict=False, default_section="\0")
    try:
        parser.read_string(read_regular_file(_config_file(environ), _MAX_CONFIG_BYTES).decode())
    except (FileError, ValueError, configparser.Error):
        return None
    profile = environ.get("AWS_PROFILE") or environ.get("AWS_DEFAULT_PROFILE") or "default"
    regions = (parser.get(name, "region", fallback=None) for name in (profile, f"profile {profile}"))
    return next(filter(None, regions), None)


def _config_file(environ: Mapping[str, str]) -> Path:
    """Return the path of AWS's config file; one that cannot exist if no home is set."""
    home = Path(environ.get("HOME") or environ.get("USERPROFILE") or "/nonexistent")
    named = environ.get("AWS_CONFIG_FILE", "")
    if named.startswith("~/"):
        return home / named[2:]
    return Path(named) if named else home / ".aws" / "config"
