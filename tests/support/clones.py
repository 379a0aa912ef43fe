"""Clones of other projects, whose own tests run with the gateway."""

import shutil
import subprocess
import sys
from pathlib import Path


def cloned(source: str, folder: Path, *options: str) -> Path:
    """Return the folder with a clone, which is made when first needed; end with the reason if it cannot be."""
    if not folder.is_dir():
        partial = folder.with_name(f"{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        command = ["git", "clone", "--quiet", "--depth", "1", *options, source, str(partial)]
        if subprocess.run(command, check=False).returncode:
            sys.exit(
                f"{source} cannot be cloned; is this machine online? A clone in {folder} is used as it is"
            )
        partial.rename(folder)
    return folder
