"""Claude Code's settings files, and the settings in them that bypass or block the gateway."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..rules.desktop import PROVIDER_KEY
from ..rules.read_file import FileError, read_regular_file
from ..text.bounded_json import parsed_object

# Settings of an organisation, which override all others.
_MANAGED = (
    Path("/etc/claude-code/managed-settings.json"),
    Path("/Library/Application Support/ClaudeCode/managed-settings.json"),
)
# They pin the client to Anthropic's own login and block every gateway key.
_BLOCKING = ("forceLoginMethod", "forceLoginOrgUUID")
_MAX_BYTES = 1 << 20
_PROVIDER = re.compile(rf'"{PROVIDER_KEY}"\s*:'.encode())


@dataclass(frozen=True, slots=True)
class SettingsFile:
    """The contents of one of Claude Code's settings files."""

    path: Path
    data: Mapping[str, Any]

    @property
    def env(self) -> Mapping[str, str]:
        """Variables that it sets; they override exported ones."""
        env = self.data.get("env")
        return {str(name): str(value) for name, value in env.items()} if isinstance(env, dict) else {}


def user_settings(environ: Mapping[str, str]) -> Path:
    """Return the path of the user's settings file."""
    folder = environ.get("CLAUDE_CONFIG_DIR")
    home = environ.get("HOME") or str(Path.home())
    return (Path(folder) if folder else Path(home) / ".claude") / "settings.json"


def read_all(environ: Mapping[str, str], project: Path) -> tuple[SettingsFile, ...]:
    """Return the settings files that Claude Code reads in a project, except broken and missing ones."""
    paths = [
        user_settings(environ),
        project / ".claude" / "settings.json",
        project / ".claude" / "settings.local.json",
        *_MANAGED,
    ]
    read = ((path, parsed_object(_content(path))) for path in dict.fromkeys(paths))
    return tuple(SettingsFile(path, data) for path, data in read if data is not None)


def _content(path: Path) -> bytes:
    try:
        return read_regular_file(path, _MAX_BYTES)
    except FileError:
        return b""


def desktop_rules(environ: Mapping[str, str]) -> Path | None:
    """Return the user's settings file if it contains Desktop's third-party-inference keys.

    A file with broken JSON counts too, so that its fault is reported and no other rules are taken instead.
    """
    path = user_settings(environ)
    content = _content(path)
    try:
        data = json.loads(content)
        has_keys = isinstance(data, dict) and PROVIDER_KEY in data
    except (ValueError, RecursionError):
        has_keys = _PROVIDER.search(content) is not None
    return path if has_keys else None


def overrides(
    files: Iterable[SettingsFile], put: Mapping[str, str], unset: Iterable[str]
) -> list[tuple[Path, str]]:
    """Return the variables to which a settings file gives another value than the client's environment."""
    removed = set(unset)
    return [
        (file.path, name)
        for file in files
        for name, value in file.env.items()
        if (name in put and put[name] != value) or (name in removed and value)
    ]


def blocking(files: Iterable[SettingsFile]) -> list[tuple[Path, str]]:
    """Return the settings that block gateway keys altogether."""
    return [(file.path, key) for file in files for key in _BLOCKING if file.data.get(key)]
