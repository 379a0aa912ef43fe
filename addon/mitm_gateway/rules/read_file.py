"""Reading a file safely: no waiting for a pipe, no device, no more than a bound."""

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import IO


class FileError(Exception):
    """A file that cannot be used; the text gives the reason and contains nothing of the file."""


class FileMissing(FileError):
    """A path with no file."""


def open_file(path: Path, *, pipes: bool = False) -> IO[bytes]:
    """Return an open regular file; with `pipes`, also a pipe that has a writer. Raises FileError."""
    try:
        # Without O_NONBLOCK, opening a pipe would block the whole proxy.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise FileMissing("the file does not exist") from None
    except OSError as fault:
        raise FileError(f"the file cannot be read: {fault.strerror}") from None
    except ValueError:
        raise FileError("the file cannot be read: its path is not valid") from None
    mode = os.fstat(handle).st_mode
    if not stat.S_ISREG(mode) and not (pipes and stat.S_ISFIFO(mode)):
        os.close(handle)
        is_folder = stat.S_ISDIR(mode)
        raise FileError(
            "this is a folder; expected a file" if is_folder else "the file is not a regular file"
        )
    os.set_blocking(handle, stat.S_ISFIFO(mode))
    return os.fdopen(handle, "rb")


def read_regular_file(
    path: Path, max_bytes: int, check: Callable[[os.stat_result], None] | None = None
) -> bytes:
    """Return the content of a regular file. Raises FileError if it is missing, too large or of another kind.

    `check` gets the status of the open file before it is read, and may raise an error.
    """
    with open_file(path) as file:
        if check is not None:
            check(os.fstat(file.fileno()))
        try:
            # Some files of the kernel are regular, and have nothing to read yet.
            content = file.read(max_bytes + 1) or b""
        except OSError as fault:
            raise FileError(f"the file cannot be read: {fault.strerror}") from None
    if len(content) > max_bytes:
        raise FileError(f"the file is larger than {max_bytes // 1024} KiB")
    return content
