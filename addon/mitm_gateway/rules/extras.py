"""The command that installs the packages of an extra, as it fits the way in which the gateway was installed.

It names the packages themselves: the gateway may come from a clone or an archive, and not from the index.
"""

import contextlib
import shlex
import sys
from pathlib import Path
from typing import Literal

Extra = Literal["aws", "google", "otel"]

# As in pyproject.toml.
PACKAGES: dict[Extra, tuple[str, ...]] = {
    "aws": ("botocore>=1.34",),
    "google": ("google-auth[requests]>=2.30",),
    "otel": ("opentelemetry-exporter-otlp-proto-http>=1.45", "opentelemetry-exporter-prometheus>=0.66b0"),
}


def installing(extra: Extra, prefix: Path | None = None, python: str = sys.executable) -> str:
    """Return the command for an environment, by default the one that runs."""
    prefix = prefix or Path(sys.prefix)
    packages = shlex.join(PACKAGES[extra])
    if (prefix / "pipx_metadata.json").is_file():
        return f"pipx inject {shlex.quote(prefix.name)} {packages}"
    # uvx creates an environment in uv's cache for each run.
    if any(part.startswith(("archive-v", "environments-v")) for part in prefix.parts):
        return (
            f"uvx --with {' --with '.join(map(shlex.quote, PACKAGES[extra]))} with the rest of your command"
        )
    if _is_of_uv(prefix):
        return f"uv pip install --python {shlex.quote(python)} {packages}"
    return f"{shlex.quote(python)} -m pip install {packages}"


def _is_of_uv(prefix: Path) -> bool:
    """Return whether uv made an environment, so that it has no pip."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return any(line.startswith("uv =") for line in (prefix / "pyvenv.cfg").read_text().splitlines())
    return False
