"""Reading a regular file safely: no waiting for a pipe, no device, no more than a bound."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path


class FileError(Exception):
    """A file that cannot be used; the text gives the reason and contains nothing of the file."""


class FileMissing(FileError):
    """A path with no file."""


def read_regular_file(
    path: Path, max_bytes: int, check: Callable[[os.stat_result], None] | None = None
) -> bytes:
    """Return the content of a regular file. Raises FileError if it is missing, too large or of another kind.

    `check` gets the status of the open file before it is read, and may raise an error.
    """
    try:
        # Without O_NONBLOCK, opening a pipe would block the whole proxy.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise FileMissing("the file does not exist") from None
    except OSError as fault:
        raise FileError(f"the file cannot be read: {fault.strerror}") from None
    except ValueError:
        raise FileError("the file cannot be read: its path is not valid") from None
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            is_folder = stat.S_ISDIR(status.st_mode)
            raise FileError(
                "this is a folder; expected a file" if is_folder else "the file is not a regular file"
            )
        if check is not None:
            check(status)
        return _content(handle, max_bytes)
    finally:
        os.close(handle)


def _content(handle: int, max_bytes: int) -> bytes:
    try:
        with os.fdopen(handle, "rb", closefd=False) as file:
            content = file.read(max_bytes + 1)
    except OSError as fault:
        raise FileError(f"the file cannot be read: {fault.strerror}") from None
    if len(content) > max_bytes:
        raise FileError(f"the file is larger than {max_bytes // 1024} KiB")
    return content
