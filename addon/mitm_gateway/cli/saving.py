"""Files that commands write: recordings of `run` and `serve`, and files that are written as a whole or not at all."""

import argparse
import contextlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from .common import say

_OPTION = "save_stream_file"


class SaveError(Exception):
    """A recording that cannot be written; the text gives the reason and the remedy."""


@contextmanager
def whole_file(path: Path, *, mode: int = 0o600, overwrite: bool = True) -> Iterator[IO[str]]:
    """Yield a draft that replaces the file once it is complete; after a failure it is deleted.

    Raises FileExistsError for an existing file unless `overwrite` is set. A link is replaced, not followed.
    """
    try:
        handle, draft = tempfile.mkstemp(dir=path.parent, prefix=".mitm-gateway-")
    except OSError as fault:
        raise OSError(fault.errno, fault.strerror, str(path)) from None
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            yield file
            os.fchmod(file.fileno(), mode)
        if overwrite:
            Path(draft).replace(path)
        else:
            path.hardlink_to(draft)
    finally:
        Path(draft).unlink(missing_ok=True)


def add_save_option(parser: argparse.ArgumentParser) -> None:
    """Add the option that names a recording."""
    parser.add_argument(
        "--save", type=Path, metavar="FILE", help="record the traffic in a new file, for `mitm-gateway flows`"
    )


@contextmanager
def recording(path: Path | None, assignments: list[str]) -> Iterator[list[str]]:
    """Create a recording; yield mitmproxy's options for it, and say at the end where it is. Raises SaveError."""
    if path is None:
        yield []
        return
    if any(assignment.partition("=")[0] == _OPTION for assignment in assignments):
        raise SaveError(f"--save and --set {_OPTION} both name a recording; expected one of them")
    path = _created(path.expanduser().absolute())
    try:
        # mitmproxy formats the path as a date.
        yield [f"{_OPTION}=+{str(path).replace('%', '%%')}"]
    finally:
        _tell(path)


def _created(path: Path) -> Path:
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        raise SaveError(
            f"--save {path}: the file exists; expected a new one (`--set {_OPTION}=+{path}` adds to a recording)"
        ) from None
    return path


def _tell(path: Path) -> None:
    """Print the path of the recording; delete one without requests."""
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_size:
            say(f"the traffic is recorded in {path}; `mitm-gateway flows {path}` shows it")
        else:
            path.unlink()
