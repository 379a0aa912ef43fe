"""Files of authorities that the user has named in the configuration of npm, git and pip instead of a variable."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from .api_hosts import Environ

# The variable that beats the setting, and the setting's name.
_SETTINGS = {"npm_config_cafile": "cafile", "GIT_SSL_CAINFO": "sslcainfo", "PIP_CERT": "cert"}
_REFERENCE = re.compile(r"\$\{(\w+)\}")


def configured_ca_files(environ: Environ) -> dict[str, str]:
    """Return the file that each of these settings names, by the variable that overrides the setting."""
    found = {}
    for variable, setting in _SETTINGS.items():
        for file in _files(variable, environ):
            for value in _values(file, setting):
                found[variable] = _expanded(value, environ)
    return found


def _values(file: Path, setting: str) -> list[str]:
    try:
        lines = file.read_text(errors="replace").splitlines()
    except OSError:
        return []
    pairs = (line.partition("=") for line in lines)
    return [
        value.strip().strip("\"'")
        for name, _, value in pairs
        if name.strip().lower() == setting and value.strip()
    ]


def _files(variable: str, environ: Environ) -> Iterator[Path]:
    home = Path(environ.get("HOME") or "/nonexistent")
    config = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
    match variable:
        case "npm_config_cafile":
            if npm := shutil.which("npm", path=environ.get("PATH", "")):
                yield Path(npm).parent.parent / "etc" / "npmrc"
            yield Path(environ.get("npm_config_userconfig") or home / ".npmrc")
        case "GIT_SSL_CAINFO":
            yield from (Path("/etc/gitconfig"), config / "git" / "config", home / ".gitconfig")
        case _:
            yield from (Path("/etc/pip.conf"), home / ".pip" / "pip.conf", config / "pip" / "pip.conf")


def _expanded(value: str, environ: Environ) -> str:
    value = _REFERENCE.sub(lambda found: environ.get(found[1], found[0]), value)
    return f"{environ['HOME']}{value[1:]}" if value.startswith("~/") and environ.get("HOME") else value
